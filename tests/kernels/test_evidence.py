"""What one image tells: all of it is looked at, or parts that are spread over it."""

from __future__ import annotations

import torch
from torch.testing import assert_close

from synthpipe.kernels.evidence import evidence_of, tiles
from synthpipe.kernels.spectra import crop_spectra, log_amplitudes
from tests.kernels.fields import fields


def test_tiles_hold_each_pixel_once() -> None:
    image = torch.arange(1100 * 520).reshape(1, 1100, 520)
    parts = tiles(image)
    assert [tuple(part.shape[1:]) for part in parts] == [(367, 260)] * 2 + [(366, 260)] * 2 + [(367, 260)] * 2
    seen = torch.cat([part.flatten() for part in parts])
    assert torch.equal(seen.sort().values, image.flatten())
    assert len(tiles(image[:, :512, :512])) == 1


def test_of_a_large_image_some_tiles_are_looked_at_wherever_they_lie() -> None:
    image = torch.arange(2048 * 2048).reshape(1, 2048, 2048)
    parts = tiles(image, pixels=4 * 300**2)
    assert {tuple(part.shape[1:]) for part in parts} == {(512, 512)}
    assert len(parts) == 1
    parts = tiles(image, pixels=256**2 + 1)
    assert [tuple(part.shape[1:]) for part in parts] == [(256, 256)]
    parts = tiles(image, pixels=8 * 512**2)
    rows, columns = zip(*(divmod(int(part[0, 0, 0]), 2048) for part in parts), strict=True)
    assert len(parts) == 8
    assert (min(rows), max(rows)) == (0, 1536)
    assert len(set(columns)) > 1


def test_tiles_of_an_image_count_together() -> None:
    image = fields(1, seed=1, side=600)[0]
    found = evidence_of(image)
    assert len(found.spectra) == 4
    whole, parts = log_amplitudes([crop_spectra(image)])[0, 2:], log_amplitudes(found.spectra)[0, 2:]
    assert_close(parts, whole, atol=0.05, rtol=0)
    only = evidence_of(image, edges=False)
    assert (len(only.edges), len(only.spectra)) == (0, 4)
    assert evidence_of(image, spectra=False).spectra == ()
