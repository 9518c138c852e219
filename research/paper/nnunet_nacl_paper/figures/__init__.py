"""The paper's figures of a comparison, drawn from comparison.json."""
