"""Losses and regularisers by name. A new one is one line here: autograd does the rest.

A loss is given the scores of positive pairs, [p], and of each pair's negatives, [p, k], and gives what each pair costs,
[p]. A regulariser is given rows of the tables, [r, d], and gives one number.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, cat
from torch.nn.functional import logsigmoid, relu

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    # Mikolov et al., "Distributed representations of words and phrases and their compositionality", 2013, equation 4.
    "log-sigmoid": lambda positive, negative: -logsigmoid(positive) - logsigmoid(-negative).sum(dim=1),
    # Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", 2009, section 4.1.
    "bpr": lambda positive, negative: -logsigmoid(positive[:, None] - negative).sum(dim=1),
    # Hadsell, Chopra and LeCun hold pairs apart by a margin; of scores rather than distances it is the hinge loss.
    "hinge": lambda positive, negative: relu(1 - positive[:, None] + negative).sum(dim=1),
    # Oord, Li and Vinyals, "Representation learning with contrastive predictive coding", 2018: InfoNCE.
    "sampled-softmax": lambda positive, negative: (
        cat([positive[:, None], negative], dim=1).logsumexp(dim=1) - positive
    ),
}

NEVER = -1e9
"""The score of a negative that is none: it costs nothing."""

REGULARISERS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda rows: rows.new_zeros(()),
    "l2": lambda rows: rows.square().sum(),
    "l1": lambda rows: rows.abs().sum(),
}
