"""Which tasks there are to fit, and from a plan to its task."""

from __future__ import annotations

from .. import data
from ..data.conll2000 import TaggedDataset
from ..data.dates import PairsDataset
from ..data.sequences import SequenceDataset
from ..data.treebank import TreeDataset
from .fit_plan import FitPlan
from .label_task import LabelTask
from .language_task import LanguageTask
from .parse_task import ParseTask
from .review_task import ReviewTask
from .sequence_task import SequenceTask
from .tagging_task import TaggingTask
from .task import Task
from .task_options import ReviewOptions
from .translate_task import TranslateTask
from .word2vec_task import Word2VecTask


def find_task(plan: FitPlan) -> Task:
    """The task that the plan names, with its data loaded.

    Raises:
        UnknownNameError: there is none of that name.
        UserError: its files are absent or damaged, or the plan asks of it what it has not.
    """
    if plan.task == "word2vec":
        return Word2VecTask(plan)
    if plan.task in data.CORPORA or plan.task.endswith(".txt"):
        return LanguageTask(plan, data.load_corpus(plan.task))
    found = data.load(plan.task, seed=plan.run.seed)
    if isinstance(found, PairsDataset):
        return TranslateTask(plan, found)
    if isinstance(found, TaggedDataset):
        return TaggingTask(plan, found)
    if isinstance(found, TreeDataset):
        return ParseTask(plan, found)
    if isinstance(plan.task_options, ReviewOptions) and isinstance(found, SequenceDataset):
        return ReviewTask(plan, found)
    return SequenceTask(plan, found) if isinstance(found, SequenceDataset) else LabelTask(plan, found)
