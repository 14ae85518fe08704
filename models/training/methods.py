"""The ways to learn listing embeddings, by name. Each is one file: its settings, and `train`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import msgspec

from models.errors import UserError
from models.training import (
    combine,
    content2vec,
    eges,
    item2vec,
    matrix_factorisation,
    meta_prod2vec,
    ncf,
    node2vec,
    session_encoder,
    skip_gram,
    user_types,
    vbpr,
)
from models.training.corpus import Corpus
from models.training.run import Floats, Run

DEFAULT = "session-encoder"


@dataclass(frozen=True, slots=True)
class Method:
    """A way to learn vectors: `train(corpus, settings, run)` gives float32 [n, d] for the corpus' n listings: of unit
    length, or zeros where nothing is known of a listing. Raises UserError where it needs what the corpus lacks."""

    settings: type[Any]
    """A dataclass whose every field has a default."""
    train: Callable[[Corpus, Any, Run], Floats]
    warm: bool = False
    """Whether it can start from another bundle's vectors."""
    whole: bool = False
    """Whether it is given every action, rejections and short sessions too, rather than the steps of the sessions."""

    @property
    def fields(self) -> dict[str, Any]:
        """The settings' names and defaults."""
        return {field.name: field.default for field in dataclasses.fields(self.settings)}


METHODS: dict[str, Method] = {
    "session-encoder": Method(session_encoder.SessionEncoder, session_encoder.train, warm=True, whole=True),
    "skip-gram": Method(skip_gram.SkipGram, skip_gram.train, warm=True),
    "item2vec": Method(item2vec.Item2Vec, item2vec.train),
    "node2vec": Method(node2vec.Node2Vec, node2vec.train),
    "eges": Method(eges.Eges, eges.train),
    "meta-prod2vec": Method(meta_prod2vec.MetaProd2Vec, meta_prod2vec.train),
    "content2vec": Method(content2vec.Content2Vec, content2vec.train),
    "matrix-factorisation": Method(
        matrix_factorisation.MatrixFactorisation, matrix_factorisation.train, warm=True
    ),
    "ncf": Method(ncf.NeuralCollaborativeFiltering, ncf.train, warm=True),
    "vbpr": Method(vbpr.Vbpr, vbpr.train),
    "user-types": Method(user_types.UserTypes, user_types.train, whole=True),
    "combine": Method(combine.Combine, combine.train),
}


def configured(name: str, values: Mapping[str, Any]) -> Any:
    """The method's settings, with these values in place of the defaults; texts are read as what the setting is.

    Raises UserError for a setting that it does not have, or a value that it can't have.
    """
    method = METHODS[name]
    for key in values:
        if key not in method.fields:
            raise UserError(f"{name} has no setting `{key}`; it has {', '.join(method.fields)}")
    try:
        return msgspec.convert(dict(values), type=method.settings, strict=False)
    except msgspec.ValidationError as error:
        found = re.search(r"`\$\.(\w+)`", str(error))
        if found is None:
            raise UserError(f"the settings of {name}: {error}") from None
        says = (
            str(error).split(" - at ")[0].removeprefix("Expected ").replace("Number out", "a number not out")
        )
        if choices := get_args(
            get_type_hints(method.settings)[found[1]]
        ):  # of a Literal, which msgspec does not name
            says = " or ".join(map(str, choices))
        raise UserError(f"{name}: `{found[1]}` must be {says}, not {values[found[1]]!r}") from None
