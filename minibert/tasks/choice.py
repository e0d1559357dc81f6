"""The task of a head."""

from minibert.model.config import HeadConfig
from minibert.tasks.multi_label import MultiLabel
from minibert.tasks.regression import Regression
from minibert.tasks.single_label import SingleLabel
from minibert.tasks.task import Task


def task_of(head: HeadConfig) -> Task:
    """Return the task of a head."""
    if head.task == "multi-label":
        return MultiLabel(head)
    if head.task == "regression":
        return Regression(head)
    return SingleLabel(head)
