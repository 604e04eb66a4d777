"""The task of telling the next word or character of a long text, of which the encoder's state is carried along.

Recurrent language models after Mikolov et al. 2010, trained through truncated time; the vectors of tokens are tied to
those of the outputs after Press and Wolf 2017 (arXiv:1608.05859).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional as F

from ..agents.parts.compute import Compute
from ..data.corpus import Corpus, Stream
from ..encoders.base import Encoder, Inputs, State, reset_state
from ..envs.errors import SpecError, UserError
from .epochs import Trainer
from .fit_encoder import first_encoder
from .fit_plan import FitPlan
from .next_token import mean_nats
from .task import Judged, SplitName, Task, TaskModel, plain_trainer, refuse_image_settings
from .task_options import LanguageOptions

ROWS_JUDGED = 20  # pieces of the text that are read side by side in judging
WRITTEN = 600  # tokens of the sample


class StreamBatches:
    """A text cut into rows that are read side by side, `steps` tokens at a time, in order.

    "x" and "target" are int64 `[rows, steps]`, the target of a token being the next one; the last batch of an
    epoch may be shorter. `state` is what whoever reads wants to carry to the next batch; it is () at the start.
    """

    def __init__(self, stream: Stream, rows: int, steps: int, device: str = "cpu"):
        """Raises UserError where the text is too short for so many rows."""
        if rows < 1 or steps < 1:
            raise UserError(f"the batch size and the steps must be at least 1, not {rows} and {steps}")
        length = (len(stream) - 1) // rows
        if length < 1:
            raise UserError(f"a text of {len(stream):,} tokens is too short for {rows} rows; lower --batch-size")
        used = stream.ids[: length * rows + 1].to(device)
        self._x, self._target = (part.view(rows, length) for part in (used[:-1], used[1:]))
        self.batch_size = rows * steps  # tokens
        self.steps = steps
        self.state: State = ()
        self._next = 0

    def __len__(self) -> int:
        return -(-self._x.shape[1] // self.steps)

    def epoch(self) -> Iterator[dict[str, Tensor]]:
        """What is left of the current epoch."""
        if self._next == 0:
            self.state = ()
        while self._next < len(self):
            part = slice(self._next * self.steps, (self._next + 1) * self.steps)
            self._next += 1
            yield {"x": self._x[:, part], "target": self._target[:, part]}
        self._next = 0

    def state_dict(self) -> dict[str, Any]:
        """Where it stands, and what is carried; the batch that was yielded last counts as done."""
        return {"next": self._next, "state": list(self.state)}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Go on from `state_dict()` of the same batches."""
        self._next, self.state = saved["next"], tuple(leaf.to(self._x.device) for leaf in saved["state"])


class LanguageModel(TaskModel):
    """Encoder, dropout and one output per token."""

    def __init__(self, encoder: Encoder, tokens: int, options: LanguageOptions, frozen: bool = False):
        """Raises UserError where outputs are to be tied to vectors that the encoder has not."""
        super().__init__(encoder, frozen)
        inputs = math.prod(encoder.feature_shape)
        table = next((m for m in encoder.modules() if isinstance(m, nn.Embedding) and len(m.weight) == tokens), None)
        if options.tied and table is None:
            raise UserError(
                "the encoder has no learned vectors of tokens to tie the outputs to: give --encoder.embedding, or "
                "--task.no-tied"
            )
        width = table.embedding_dim if options.tied and table is not None else inputs
        self.dropout = nn.Dropout(options.dropout)
        self.project: nn.Module = nn.Identity() if width == inputs else nn.Linear(inputs, width)
        self.head = nn.Linear(width, tokens)
        if options.tied and table is not None:
            self.head.weight = table.weight
            nn.init.uniform_(table.weight, -0.1, 0.1)  # standard normal vectors would make confident guesses at first
        self.train()

    def forward(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """Tokens int64 `[B, L]` and a state, () for the initial one, to logits `[B, L, tokens]` and the next state."""
        features, state = self.read(x, state)
        return self.head(features), state

    def read(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """As `forward`, to what the logits are made of, `[B, L, width]`."""
        with self.gradients_reach_encoder():
            state = state or self.encoder.initial_state(len(x))
            features, state = self.encoder(Inputs(x.t()), state)
        return self.project(self.dropout(features.flatten(2))).transpose(0, 1), state


class LanguageTask(Task):
    """A text by words or by characters."""

    unit = "tokens"
    watched = ("validation/perplexity", "validation perplexity {:.1f}")
    is_heavy = True

    def __init__(self, plan: FitPlan, corpus: Corpus):
        """Raises UserError where there is nothing to judge by, or the plan asks what only images have."""
        refuse_image_settings(plan)
        if plan.run.hidden:
            raise UserError(f"{plan.task} is a text: leave out --hidden")
        if not len(corpus.validation):
            raise UserError(f"{plan.task} is for word vectors only: it has no text to judge a language model by")
        self.corpus, self.spec = corpus, corpus.spec

    def make_model(self, plan: FitPlan, *, weights: bool) -> LanguageModel:
        torch.manual_seed(plan.run.seed)
        encoder = first_encoder(plan, self.spec, weights=weights)
        if not encoder.causal:
            raise SpecError(f"encoder {plan.encoder!r} reads what comes later, which a language model is to tell")
        assert isinstance(plan.task_options, LanguageOptions)
        frozen = plan.run.encoder_mode == "frozen"
        model = LanguageModel(encoder, len(self.corpus.words), plan.task_options, frozen)
        return model

    def make_trainer(self, plan: FitPlan, model: TaskModel, compute: Compute) -> Trainer:
        assert isinstance(model, LanguageModel)
        run, options = plan.run, plan.task_options
        batches = StreamBatches(self.corpus.train, run.batch_size, options.steps, compute.device)

        def loss(batch: dict[str, Tensor]) -> dict[str, Tensor]:
            features, state = model.read(batch["x"], _begun_anew(batches.state, model.encoder, options.restart))
            batches.state = tuple(leaf.detach() for leaf in state)
            told = model.head.weight, model.head.bias, batch["target"].flatten()
            return {"cross_entropy": mean_nats(features.flatten(0, 1), *told)}

        return plain_trainer(plan, model, loss, batches, compute)

    @torch.no_grad()
    def judge(
        self, plan: FitPlan, model: TaskModel, split: SplitName, compute: Compute, *, is_final: bool = False
    ) -> Judged:
        """Every token of the split but the very first, and up to ROWS_JUDGED - 1 last ones, is told once, with all of
        its piece before it. A piece begins with nothing before it, which makes perplexity a little worse."""
        assert isinstance(model, LanguageModel)
        stream = self.corpus.validation if split == "validation" else self.corpus.test
        batches = StreamBatches(stream, min(ROWS_JUDGED, len(stream) - 1), 200, compute.device)
        total, count, was_training = 0.0, 0, model.training
        model.eval()
        try:
            for batch in batches.epoch():
                with compute.autocast():
                    logits, batches.state = model(batch["x"], batches.state)
                nats = _nats(logits, batch["target"])
                total, count = total + float(nats.double().sum()), count + nats.numel()
        finally:
            model.train(was_training)
        nats_per_token = total / count
        values = {"error": nats_per_token, "perplexity": math.exp(nats_per_token)}
        values["bits_per_token"] = nats_per_token / math.log(2)
        report: dict[str, Any] = values | {"nats_per_token": nats_per_token, "tokens": count}
        if is_final and split == "test":
            report["sample"] = self.write(model, compute, plan.run.seed)
        return Judged(nats_per_token, values, report)

    @torch.no_grad()
    def write(self, model: LanguageModel, compute: Compute, seed: int, count: int = WRITTEN) -> str:
        """`count` tokens drawn from the model, after the first of the validation text."""
        generator = torch.Generator().manual_seed(seed)
        token = self.corpus.validation.ids[:1].to(compute.device)
        state: State = ()
        said, was_training = [int(token)], model.training
        model.eval()
        for _ in range(count):
            with compute.autocast():
                logits, state = model(token.view(1, 1), state)
            chance = logits[0, 0].float().softmax(0).cpu()
            token = torch.multinomial(chance, 1, generator=generator).to(compute.device)
            said.append(int(token))
        model.train(was_training)
        words = [self.corpus.words[number] for number in said]
        return ("" if max(map(len, self.corpus.words)) == 1 else " ").join(words)

    def score(self, judged: Judged) -> dict[str, Any]:
        return {"mean": round(judged.report["perplexity"], 3), "what": "test perplexity"}

    def facts(self, plan: FitPlan) -> dict[str, Any]:
        return {"training_tokens": len(self.corpus.train), "vocabulary": len(self.corpus.words)}

    def figures(self, model: TaskModel, judged: Judged, compute: Compute) -> dict[str, Figure]:
        return {}


def _begun_anew(state: State, encoder: Encoder, share: float) -> State:
    """`state`, with the initial one in a random `share` of the rows."""
    if not state or not share:
        return state
    rows = len(state[0])
    return reset_state(state, encoder.initial_state(rows), torch.rand(rows, device=state[0].device) < share)


def _nats(logits: Tensor, target: Tensor) -> Tensor:
    """`[B * L]`."""
    return F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
