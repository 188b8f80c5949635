"""Blur, and blur with subsampling (super-resolution): around a circular border, or with borders unknown.

``y[i] = sum_t kernel[t] x[scale * i + centre - t]`` in both directions.  With a scale s, ``K K^T`` is again a
convolution, with each s-th value of the kernel's autocorrelation; around a circular border the data step has a closed
form with it, which is the one of Zhao et al. (2016, "Fast single image super-resolution using a new analytical
solution") with its sums over aliases written as a subsampling.

Legend: h, w size of what is observed, H, W of the unknown image.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from synthpipe.denoisers.blur_kernels import bicubic_kernel, check_kernel
from synthpipe.denoisers.degradation_operators import DegradationOperator
from synthpipe.errors import ShapeError

__all__ = ["Blur", "CircularBlur", "ValidBlur", "bicubic_reduction"]

#: Where conjugate gradients stop: norm of the residual over that of the right side, for the worst image.
_CG_TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}
_CG_STEPS = 500
# Pixels of a kernel whose autocorrelation is summed up one by one.
_DIRECT = 41 * 41


class Blur(DegradationOperator):
    """What both borders share.

    Args:
        kernel: ``(h, w)``, sums to 1.
        scale: of super-resolution; 1: blur alone.
        centre: place of the kernel's origin; None: its middle, for odd sides.

    Raises:
        ShapeError: no such kernel, scale or centre.
    """

    kernel: Tensor

    def __init__(self, kernel: Tensor, scale: int = 1, centre: tuple[int, int] | None = None) -> None:
        super().__init__()
        check_kernel(kernel, odd=centre is None)
        centre = (kernel.shape[0] // 2, kernel.shape[1] // 2) if centre is None else centre
        if scale < 1 or not all(0 <= c < side for c, side in zip(centre, kernel.shape, strict=True)):
            raise ShapeError(
                f"{type(self).__name__}: expected a scale of at least 1 and a centre within the kernel of "
                f"{kernel.shape[0]}x{kernel.shape[1]}, got scale={scale}, centre={centre}"
            )
        self.register_buffer("kernel", kernel.double())
        self.scale = scale
        self.centre = centre

    @abstractmethod
    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the unknown image of an observation."""

    @property
    @abstractmethod
    def offset(self) -> tuple[int, int]:
        """Where in the unknown image the observation's first pixel lies."""

    def first_guess(self, y: Tensor) -> Tensor:
        """The observation bicubically enlarged to ``(B, C, H, W)``, moved back by the kernel's centre of mass."""
        axes = []
        for dim, side in enumerate(self.clean_size(*y.shape[2:])):
            mass = self.kernel.sum(1 - dim)
            mean = float((mass * torch.arange(len(mass), dtype=mass.dtype, device=mass.device)).sum())
            first = self.offset[dim] + self.centre[dim] - mean
            place = (torch.arange(side, dtype=y.dtype, device=y.device) - first) / self.scale
            axes.append(2 * place / max(y.shape[2 + dim] - 1, 1) - 1)
        rows, columns = torch.meshgrid(*axes, indexing="ij")
        grid = torch.stack([columns, rows], -1)[None].expand(len(y), -1, -1, -1)
        return F.grid_sample(y, grid, mode="bicubic", padding_mode="border", align_corners=True)

    def _transfer(self, height: int, width: int, like: Tensor) -> Tensor:
        """Of the circular convolution; computed in float64, because what blur removes is tiny in it."""
        kernel = self.kernel.to(like.device)
        spectrum: Tensor = torch.fft.rfft2(_wrap(kernel, self.centre, height, width))
        return spectrum.to(torch.complex128 if like.dtype == torch.float64 else torch.complex64)


class CircularBlur(Blur):
    """Blur that wraps around the border; every step is exact in the Fourier domain.  Arguments: :class:`Blur`."""

    def forward(self, x: Tensor) -> Tensor:
        """K x: ``(B, C, H, W)`` -> ``(B, C, H / scale, W / scale)``.

        Raises:
            ShapeError: sides that are no multiples of the scale.
        """
        height, width = x.shape[2:]
        if height % self.scale or width % self.scale:
            raise ShapeError(f"CircularBlur: sides must be multiples of the scale {self.scale}, got {height}x{width}")
        return _filter(x, self._transfer(height, width, x))[..., :: self.scale, :: self.scale]

    def adjoint(self, y: Tensor) -> Tensor:
        """K^T y: ``(B, C, h, w)`` -> ``(B, C, scale h, scale w)``."""
        height, width = self.clean_size(*y.shape[2:])
        x = y.new_zeros(*y.shape[:2], height, width)
        x[..., :: self.scale, :: self.scale] = y
        return _filter(x, self._transfer(height, width, x).conj())

    def solve_gram(self, residual: Tensor, weight: Tensor) -> Tensor:
        """``(K K^T + weight)^-1 residual``, ``(B, C, h, w)``, exactly: ``K K^T`` is a circular convolution."""
        height, width = self.clean_size(*residual.shape[2:])
        power = self._transfer(height, width, residual).abs().square()
        if self.scale > 1:
            autocorrelation = torch.fft.irfft2(power, s=(height, width))
            power = torch.fft.rfft2(autocorrelation[:: self.scale, :: self.scale]).real
        return _filter(residual, 1 / (power + weight[:, None, None, None]))

    def data_step(self, v: Tensor, y: Tensor, weight: Tensor) -> Tensor:
        """See :class:`DegradationOperator`; ``(B, C, H, W)``."""
        if self.scale > 1:
            return super().data_step(v, y, weight)
        # The same in one go: three transforms in place of six.
        transfer, clean = self._transfer(v.shape[2], v.shape[3], v), torch.fft.rfft2(v)
        step = transfer.conj() * (torch.fft.rfft2(y) - transfer * clean)
        power = transfer.abs().square() + weight[:, None, None, None]
        out: Tensor = torch.fft.irfft2(clean + step / power, s=v.shape[2:])
        return out

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        """``scale`` times the observation's."""
        return height * self.scale, width * self.scale

    @property
    def offset(self) -> tuple[int, int]:
        """``(0, 0)``: the observation begins where the unknown image does."""
        return 0, 0


class ValidBlur(Blur):
    """Blur of a scene that goes on beyond the observation: what cameras do.  Arguments: :class:`Blur`.

    Only pixels whose whole kernel lies in the unknown image are observed, so nothing is assumed at borders; the
    unknown image is larger by the kernel, and :meth:`aligned` cuts out what lies under the observation.  ``K K^T``
    is then a Toeplitz matrix without a closed form: conjugate gradients solve with it, preconditioned by the circular
    convolution that agrees with it away from the border, to a relative residual of 1e-4 (float32) or 1e-10 (float64).
    """

    def forward(self, x: Tensor) -> Tensor:
        """K x: ``(B, C, H, W)`` -> the pixels ``(B, C, h, w)`` whose whole kernel lies in ``x``.

        Raises:
            ShapeError: images that hold no such pixel.
        """
        height, width = self._observed_size(*x.shape[2:])
        return self._valid(_filter(x, self._transfer(x.shape[2], x.shape[3], x)), height, width)

    def adjoint(self, y: Tensor) -> Tensor:
        """K^T y: ``(B, C, h, w)`` -> ``(B, C, H, W)`` of :meth:`clean_size`."""
        height, width = self.clean_size(*y.shape[2:])
        x = y.new_zeros(*y.shape[:2], height, width)
        self._valid(x, *y.shape[2:]).copy_(y)
        return _filter(x, self._transfer(height, width, x).conj())

    def solve_gram(self, residual: Tensor, weight: Tensor) -> Tensor:
        """``(K K^T + weight)^-1 residual``, ``(B, C, h, w)``, by conjugate gradients."""
        height, width = residual.shape[2:]
        lags = self._lags(residual.device)
        reach = [side // 2 for side in lags.shape]
        weight = weight[:, None, None, None]
        # Room for the longest lag makes the Toeplitz product a circular one.
        room = (height + reach[0], width + reach[1])
        embedded = torch.fft.rfft2(_wrap(lags, reach, *room)).real.to(residual)
        circulant = torch.fft.rfft2(_wrap(lags, reach, height, width)).real.clamp(min=0).to(residual)

        def gram(r: Tensor) -> Tensor:
            """``(K K^T + weight) r``, ``(B, C, h, w)``."""
            return _filter(F.pad(r, (0, reach[1], 0, reach[0])), embedded)[..., :height, :width] + weight * r

        return _conjugate_gradients(gram, lambda r: _filter(r, 1 / (circulant + weight)), residual)

    def aligned(self, x: Tensor, height: int, width: int) -> Tensor:
        """``(B, C, scale height, scale width)``, a view."""
        top, left = self.offset
        return x[..., top : top + self.scale * height, left : left + self.scale * width]

    def clean_size(self, height: int, width: int) -> tuple[int, int]:
        """The observation's size times ``scale``, and what the kernel reaches beyond it."""
        # Past the last observed pixel there may be some that nothing observes; they belong to the answer all the same.
        sides = zip((height, width), self.kernel.shape, self.offset, strict=True)
        rows, columns = (max(self.scale * (n - 1) + k, o + self.scale * n) for n, k, o in sides)
        return rows, columns

    @property
    def offset(self) -> tuple[int, int]:
        """The kernel's last row and column, less its centre."""
        return self.kernel.shape[0] - 1 - self.centre[0], self.kernel.shape[1] - 1 - self.centre[1]

    def _observed_size(self, height: int, width: int) -> tuple[int, int]:
        sides = zip((height, width), self.kernel.shape, self.offset, strict=True)
        rows, columns = (min((n - k) // self.scale + 1, (n - o) // self.scale) for n, k, o in sides)
        if min(rows, columns) < 1:
            raise ShapeError(
                f"ValidBlur: images of {height}x{width} hold no pixel that a kernel of "
                f"{self.kernel.shape[0]}x{self.kernel.shape[1]} at scale {self.scale} observes"
            )
        return rows, columns

    def _valid(self, x: Tensor, height: int, width: int) -> Tensor:
        """The places of the observed pixels, a view."""
        top, left = self.offset
        rows = slice(top, top + self.scale * (height - 1) + 1, self.scale)
        return x[..., rows, left : left + self.scale * (width - 1) + 1 : self.scale]

    def _lags(self, device: torch.device) -> Tensor:
        """The kernel's autocorrelation at multiples of the scale, lag 0 in the middle; float64."""
        kernel = self.kernel.to(device)
        if kernel.numel() > _DIRECT:
            # The direct way takes memory with the fourth power of the side.
            sides = [2 * side - 1 for side in kernel.shape]
            power = torch.fft.rfft2(kernel, sides).abs() ** 2
            full: Tensor = torch.fft.fftshift(torch.fft.irfft2(power, sides))
        else:
            full = F.conv2d(kernel[None, None], kernel[None, None], padding=[side - 1 for side in kernel.shape])[0, 0]
        rows, columns = ((side - 1) % self.scale for side in kernel.shape)
        lags: Tensor = full[rows :: self.scale, columns :: self.scale]
        return lags


def bicubic_reduction(scale: int, circular: bool = False) -> Blur:
    """Antialiased bicubic reduction by ``scale``; away from the border, that of :mod:`synthpipe.images`.

    Raises:
        ShapeError: ``scale`` is under 1.
    """
    kernel, centre = bicubic_kernel(scale)
    return (CircularBlur if circular else ValidBlur)(kernel, scale, centre)


def _wrap(kernel: Tensor, centre: tuple[int, int] | list[int], height: int, width: int) -> Tensor:
    """``kernel`` on a torus, its centre at the origin; a larger one goes round more than once."""
    rows = (torch.arange(kernel.shape[0], device=kernel.device) - centre[0]) % height
    columns = (torch.arange(kernel.shape[1], device=kernel.device) - centre[1]) % width
    torus = kernel.new_zeros(height, width)
    return torus.index_put_((rows[:, None], columns[None]), kernel, accumulate=True)


def _filter(x: Tensor, transfer: Tensor) -> Tensor:
    out: Tensor = torch.fft.irfft2(torch.fft.rfft2(x) * transfer, s=x.shape[2:])
    return out


def _conjugate_gradients(
    apply: Callable[[Tensor], Tensor], precondition: Callable[[Tensor], Tensor], right: Tensor
) -> Tensor:
    """Solve ``apply(s) = right`` for each image of a batch; ``apply`` is symmetric and positive."""
    tolerance = _CG_TOLERANCE[right.dtype] * _dot(right, right).sqrt()
    solution, residual = torch.zeros_like(right), right
    step = z = precondition(residual)
    energy = _dot(residual, z)
    for _ in range(_CG_STEPS):
        if bool((_dot(residual, residual).sqrt() <= tolerance).all()):
            break
        image = apply(step)
        # An image that is solved already has a step of 0.
        length = energy / _dot(step, image).clamp(min=torch.finfo(right.dtype).tiny)
        solution, residual = solution + length * step, residual - length * image
        z = precondition(residual)
        energy, before = _dot(residual, z), energy
        step = z + energy / before.clamp(min=torch.finfo(right.dtype).tiny) * step
    return solution


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2, 3), keepdim=True)
