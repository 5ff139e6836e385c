"""How does a transformer learn? Batches of pairs through torch, each answer against the batch's others.

A batch has one answer of each of some queries, and a wrong one where triplets name one or the model as it was
ranked a text high that is none ("hard negatives", as in Karpukhin et al., "Dense Passage Retrieval", 2020);
the loss is cross-entropy over all of them at the temperature 1/20 (MultipleNegativesRankingLoss of
sentence-transformers; Henderson et al., 2017). AdamW, a rate that rises over the first tenth of the steps and
falls to zero. After every epoch the queries that choose are asked; the best state is saved.

Needs the extra `train`: torch and sentence-transformers, which loads the model and saves it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from vecdb.adapting.examples import Examples, best, unit
from vecdb.adapting.tuning_report import Step
from vecdb.encoders.bert import find
from vecdb.errors import InvalidArgument

PACKAGES: Final = ("torch", "sentence_transformers")
REMEDY: Final = "pip install 'vecdb-engine[train]'"
SCALE: Final = 20.0
RATE: Final = 2e-5
BATCH: Final = 16
EPOCHS: Final = 2
HARD: Final = 20  # of the texts that the model ranks highest, one that is no answer
PER_QUERY: Final = 8  # answers of a query that an epoch looks at


def train(
    encoder: Any,
    examples: Examples,
    folder: Path,
    options: dict[str, Any],
    report: Callable[[int, int | None], object],
    stop: Callable[[], bool],
) -> list[Step] | None:
    """Train, save the best state into `folder`, and return the course; None where it was stopped."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InvalidArgument(
            f"fine_tune of encoder {encoder.name!r} needs {' and '.join(missing)}: {REMEDY}"
        )
    import torch
    from sentence_transformers import SentenceTransformer

    torch.manual_seed(options["seed"] % 2**63)
    source = find(encoder.name.partition(":")[2], encoder.name)[0]
    model = SentenceTransformer(str(source), device="cpu", local_files_only=True, trust_remote_code=False)
    rng = np.random.default_rng([options["seed"], 1])
    epochs, size = options["epochs"] or EPOCHS, options["batch_size"] or BATCH
    hard = _hard(encoder, examples)
    count = sum(min(PER_QUERY, len(examples.answers[row])) for row in examples.training)
    total = epochs * -(-count // size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=options["learning_rate"] or RATE)
    warm = max(1, total // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm, max(0.0, (total - step) / max(1, total - warm)))
    )
    steps = [Step(0.0, None, _score(model, examples))]
    kept = (steps[0].score, _state(model))
    done = 0
    for epoch in range(1, epochs + 1):
        losses = []
        for batch in _batches(examples, hard, size, rng):
            if stop():
                return None
            loss = _loss(torch, model, batch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            losses.append(float(loss.detach()))
            done += 1
            report(done, total)
        score = _score(model, examples)
        steps.append(Step(float(epoch), float(np.mean(losses)), score))
        if score is None or kept[0] is None or score > kept[0]:
            kept = (score, _state(model))
    model.load_state_dict(kept[1])
    model.save(str(folder), create_model_card=False)
    return steps


Batch = tuple[list[str], list[str], list[list[int]]]  # queries, texts, the texts that are no wrong answers


def _batches(examples: Examples, hard: list[list[int]], size: int, rng: np.random.Generator) -> list[Batch]:
    """An epoch: every training query with its answers, of one query at most PER_QUERY, in any order."""
    pairs = []
    for row in examples.training:
        answers = examples.answers[row]
        chosen = rng.permutation(len(answers))[:PER_QUERY]
        pairs += [(row, answers[at]) for at in chosen.tolist()]
    order = rng.permutation(len(pairs)).tolist()
    found = []
    for first in range(0, len(order), size):
        batch = [pairs[at] for at in order[first : first + size]]
        texts = [answer for _, answer in batch]
        for row, _ in batch:
            wrong = examples.wrong[row] or hard[row]
            texts += [wrong[int(rng.integers(len(wrong)))]] if wrong else []
        spared = [
            [at for at, text in enumerate(texts) if at != own and text in examples.answers[row]]
            for own, (row, _) in enumerate(batch)
        ]
        queries = [examples.queries[row] for row, _ in batch]
        found.append((queries, [examples.texts[text] for text in texts], spared))
    return found


def _loss(torch: Any, model: Any, batch: Batch) -> Any:
    queries, texts, spared = batch
    model.train()
    one, other = _vectors(torch, model, queries, "query"), _vectors(torch, model, texts, "document")
    logits = one @ other.T * SCALE
    mask = torch.zeros(logits.shape, dtype=torch.bool)
    for row, places in enumerate(spared):
        mask[row, places] = True
    logits = logits.masked_fill(mask, float("-inf"))
    return torch.nn.functional.cross_entropy(logits, torch.arange(len(queries)))


def _vectors(torch: Any, model: Any, texts: list[str], kind: str) -> Any:
    """Unit vectors with their gradients, behind the model's own prompt."""
    prompts = getattr(model, "prompts", None) or {}
    prompt = prompts.get(kind) or prompts.get(getattr(model, "default_prompt_name", None) or "", "") or ""
    made = model(_features(model, [prompt + text for text in texts]))["sentence_embedding"]
    return torch.nn.functional.normalize(made, dim=1)


def _features(model: Any, texts: list[str]) -> Any:
    """What the model reads, by the version of the package that is there."""
    return (model.preprocess if hasattr(model, "preprocess") else model.tokenize)(texts)


def _hard(encoder: Any, examples: Examples) -> list[list[int]]:
    """For each training query texts that the model as it was ranks high, and that are no answers."""
    found: list[list[int]] = [[] for _ in examples.queries]
    if examples.source == "triplets":
        return found
    documents = unit(encoder.encode_documents(examples.texts))
    queries = unit(encoder.encode_queries([examples.queries[row] for row in examples.training]))
    for query, row in zip(queries, examples.training, strict=True):
        answers = {*examples.answers[row], examples.itself[row]}
        ranking = best(documents @ query, HARD + len(answers))
        found[row] = [text for text in ranking if text not in answers][:HARD]
    return found


def _score(model: Any, examples: Examples) -> float | None:
    """How the queries that choose do; None where there are none."""
    if not examples.choosing:
        return None
    model.eval()
    encode = {"convert_to_numpy": True, "show_progress_bar": False}
    ask = getattr(model, "encode_query", model.encode)
    tell = getattr(model, "encode_document", model.encode)
    queries = ask([examples.queries[row] for row in examples.choosing], **encode)
    found = examples.judged(queries, tell(examples.texts, **encode), examples.choosing)
    return float(np.mean(next(iter(found.values()))))


def _state(model: Any) -> dict[str, Any]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


