"""From the cases that a network was not trained on to a calibration map."""
