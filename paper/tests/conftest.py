"""What these tests share with the package's own: real data, a server that has nnU-Net loaded, tiny data sets."""

from tests.conftest import clean_environ, decathlon_task, make_validated
from tests.integration.conftest import workspace

__all__ = ["clean_environ", "decathlon_task", "make_validated", "workspace"]
