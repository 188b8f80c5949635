"""Fitting: kinds that can be told apart are, unknown labels teach nothing, and probabilities come out true."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from synthpipe.density.detection import auroc
from synthpipe.density.kinds.fit import calibrate_pooling, fit_network
from synthpipe.density.kinds.scorer import KindScorer
from synthpipe.density.reliability import largest_bias, reliability_bins
from synthpipe.errors import TrainingError

KINDS = ("noise", "blur")


def scorer_of_two() -> KindScorer:
    return KindScorer(["luma_flat_0", "luma_flat_1", "luma_flat_2"], kinds=KINDS, hidden=(16,))


def made_up(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three numbers: noise raises the first two, blur lowers the second and the third; so the second says nothing."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count, 2), generator=generator)
    noise, blur = labels.float().unbind(1)
    means = torch.stack([2 * noise, 2 * noise - 2 * blur, -2 * blur], 1)
    return means + torch.randn(count, 3, generator=generator), labels


def log_ratio(features: torch.Tensor, kind: int) -> torch.Tensor:
    """The logarithm of the true likelihood ratio of a kind; the other one is there or not, as likely as not."""
    sides = []
    for there in (0.0, 1.0):
        likelihoods = []
        for other in (0.0, 1.0):
            noise, blur = (there, other) if kind == 0 else (other, there)
            mean = torch.tensor([2 * noise, 2 * noise - 2 * blur, -2 * blur])
            likelihoods.append(-0.5 * (features - mean).square().sum(1))
        sides.append(torch.logsumexp(torch.stack(likelihoods), 0))
    return sides[1] - sides[0]


def test_kinds_that_cancel_in_one_number_are_told_apart_as_well_as_can_be() -> None:
    features, labels = made_up(4000, 0)
    scorer = scorer_of_two()
    losses = fit_network(scorer, features, labels, torch.Generator().manual_seed(0), epochs=60)
    assert losses[-1] < losses[0]
    unseen, truth = made_up(4000, 1)
    logits = scorer.logits(unseen)
    for kind in range(2):
        there = truth[:, kind] == 1
        best = log_ratio(unseen, kind)
        assert auroc(best[~there], best[there]) > 0.94
        assert auroc(logits[~there, kind], logits[there, kind]) > auroc(best[~there], best[there]) - 0.01


def test_unknown_labels_teach_nothing() -> None:
    features, labels = made_up(1000, 0)
    more, wrong = made_up(1000, 2)
    unknown = torch.full_like(wrong, -1)
    one, two = scorer_of_two(), scorer_of_two()
    fit_network(one, torch.cat([features, more]), torch.cat([labels, unknown]), torch.Generator().manual_seed(0), 2)
    fit_network(
        two, torch.cat([features, more]), torch.cat([labels, 1 - unknown.abs()]), torch.Generator().manual_seed(0), 2
    )
    assert not torch.equal(one.layers[0].weight, two.layers[0].weight)  # as labels they would have
    three = scorer_of_two()
    fit_network(
        three, torch.cat([features, more]), torch.cat([labels, unknown - 3]), torch.Generator().manual_seed(0), 2
    )
    assert torch.equal(one.layers[0].weight, three.layers[0].weight)


def with_strengths(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The first number rises to where noise is surely there and no further; the second says how strong it is where it
    is, and anything elsewhere."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (count, 2), generator=generator)
    drawn = torch.exp(3.4 * torch.rand(count, generator=generator))  # up to 30
    strength = labels[:, 0] * drawn
    first = 4 * labels[:, 0] * torch.log2(drawn).clamp_max(1) + 0.5 * torch.randn(count, generator=generator)
    second = torch.log(drawn) + 0.3 * torch.randn(count, generator=generator)
    third = 4 * labels[:, 1] + torch.randn(count, generator=generator)
    return torch.stack([first, second, third], 1), labels, torch.stack([strength, 0 * strength], 1)


def test_known_strengths_order_logits_and_spoil_no_detection() -> None:
    features, labels, strengths = with_strengths(4000, 0)
    unseen, truth, strong = with_strengths(4000, 1)
    ranked, plain = scorer_of_two(), scorer_of_two()
    fit_network(ranked, features, labels, torch.Generator().manual_seed(0), 150, strengths)
    fit_network(plain, features, labels, torch.Generator().manual_seed(0), 150)
    there = truth[:, 0] == 1
    weaker, stronger = (there & (strong[:, 0] > low) & (strong[:, 0] < high) for low, high in ((3, 6), (10, 20)))
    found, before = ranked.logits(unseen), plain.logits(unseen)
    assert auroc(found[weaker, 0], found[stronger, 0]) > 0.8
    assert auroc(found[weaker, 0], found[stronger, 0]) > auroc(before[weaker, 0], before[stronger, 0]) + 0.3
    for kind in range(2):
        side = truth[:, kind] == 1
        assert auroc(found[~side, kind], found[side, kind]) > auroc(before[~side, kind], before[side, kind]) - 0.005


def test_unknown_strengths_are_as_none() -> None:
    features, labels = made_up(1000, 0)
    one, two = scorer_of_two(), scorer_of_two()
    fit_network(one, features, labels, torch.Generator().manual_seed(0), 2)
    fit_network(two, features, labels, torch.Generator().manual_seed(0), 2, torch.zeros(1000, 2))
    torch.testing.assert_close(one.layers[0].weight, two.layers[0].weight)


def test_the_calibration_of_single_tiles_is_the_logistic_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    there = torch.randint(2, (3000,), generator=generator)
    logits = 1.5 * (2 * there - 1) + 2 * torch.randn(3000, generator=generator) + 0.7
    scorer = scorer_of_two()
    both = torch.stack([logits, -logits], 1)
    labels = torch.stack([there, 1 - there], 1)
    calibrate_pooling(scorer, list(both[:, None]), labels, torch.Generator().manual_seed(0))
    x, y = logits.double().numpy(), there.double().numpy()
    weight = np.where(y == 1, 0.5 / y.sum(), 0.5 / (1 - y).sum())

    def loss(values: np.ndarray) -> float:
        z = values[0] * x + values[1]
        return float((weight * (np.logaddexp(0, z) - y * z)).sum() + 0.0005 * (values[0] + values[1] ** 2))

    expected = minimize(loss, np.zeros(2), tol=1e-10).x
    slope, least, most, constant = scorer.pooling[0, 0].tolist()
    assert (slope, constant) == (pytest.approx(expected[0], abs=0.01), pytest.approx(expected[1], abs=0.01))
    assert least == pytest.approx(0, abs=1e-3)
    assert most == pytest.approx(0, abs=1e-3)
    # No image has more tiles than one, so more tiles are judged alike.
    torch.testing.assert_close(scorer.pooling[1:], scorer.pooling[:1].expand(2, -1, -1))


def test_probabilities_of_images_are_true_and_no_tile_counts_backwards() -> None:
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        labels = torch.randint(2, (count, 2), generator=generator)
        strength = (labels * 2 - 1)[:, None] * 0.5 * torch.rand(count, 1, 2, generator=generator)
        return list(strength + torch.randn(count, 16, 2, generator=generator)), labels

    scorer = scorer_of_two()
    seen, labels = images(1500)
    calibrate_pooling(scorer, seen, labels, generator)
    assert bool((scorer.pooling[..., :3] >= 0).all())
    unseen, truth = images(4000)
    for count in (1, 4, 16):
        found = torch.stack([scorer.image_logits(tiles[:count]) for tiles in unseen]).sigmoid()
        for kind in range(2):
            assert largest_bias(reliability_bins(found[:, kind], truth[:, kind], torch.arange(4000)), 20) < 0.06


@pytest.mark.parametrize("context", [(), ("noise",)])
def test_with_context_probabilities_are_true_beside_every_other_kind(context: tuple[str, ...]) -> None:
    """The first logit stands higher by 2 where the second does, whatever is there: as noise of crisp pictures may."""
    generator = torch.Generator().manual_seed(0)

    def images(count: int) -> tuple[list[torch.Tensor], torch.Tensor]:
        labels = torch.randint(2, (count, 2), generator=generator)
        logits = 2.0 * labels - 1 + 1.2 * torch.randn(count, 2, generator=generator)
        logits[:, 0] += 2 * labels[:, 1]
        logits[:, 1] = 6 * labels[:, 1] - 3
        return list(logits[:, None] + 0.1 * torch.randn(count, 4, 2, generator=generator)), labels

    scorer = KindScorer(["luma_flat_0"], kinds=KINDS, hidden=[], context=context)
    seen, labels = images(3000)
    calibrate_pooling(scorer, seen, labels, generator)
    unseen, truth = images(6000)
    found = torch.stack([scorer.image_logits(tiles) for tiles in unseen])[:, 0].sigmoid()
    biases = []
    for side in (0, 1):
        use = truth[:, 1] == side
        biases.append(largest_bias(reliability_bins(found[use], truth[use, 0], torch.arange(int(use.sum()))), 100))
    assert (max(biases) < 0.07) if context else (min(biases) > 0.15)
    assert not bool(scorer.around[:, 1].any())


def test_images_whose_tiles_differ_are_told_apart_with_context() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (2000, 2), generator=generator)
    differ = torch.where(labels[:, :1] == 1, 0.3, 1.0)  # what is everywhere is alike everywhere
    tiles = torch.randn(2000, 1, 2, generator=generator) + differ[:, None] * torch.randn(
        2000, 16, 2, generator=generator
    )
    scorer = KindScorer(["luma_flat_0"], kinds=KINDS, hidden=[], context=["noise"])
    calibrate_pooling(scorer, list(tiles[:1000]), labels[:1000], generator)
    found = torch.stack([scorer.image_logits(few) for few in tiles[1000:]])[:, 0]
    there = labels[1000:, 0] == 1
    assert auroc(found[~there], found[there]) > 0.99


def test_refusals() -> None:
    features, labels = made_up(100, 0)
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(TrainingError, match="no mixture with 'blur'"):
        fit_network(scorer_of_two(), features, labels * torch.tensor([1, 0]), generator)
    with pytest.raises(TrainingError, match="no mixture without 'noise'"):
        fit_network(scorer_of_two(), features, labels.clamp_min(torch.tensor([1, 0])), generator)
    features[3, 1] = torch.nan
    with pytest.raises(TrainingError, match="not finite"):
        fit_network(scorer_of_two(), features, labels, generator)
