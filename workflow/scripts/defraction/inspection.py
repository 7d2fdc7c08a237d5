"""What a picture of a diffraction pattern shows, from its pixels alone: contrast, centre, marks drawn into it, spots.

Pictures are arrays (y, x), places (x, y) in pixels from the middle of the first pixel. How often contrast and centre
are right: docs/classify.md, measured by benchmarks/foreign_pictures.py.
"""

from typing import NamedTuple

import numpy as np

COARSE = 256  # px; a larger picture is averaged down to this before contrast and centre are looked for
BLOB = 1.5  # px of the coarse picture; standard deviation of the Gaussian whose second derivatives find blobs
FADING = 4.0  # weight of the fading outwards against the blobs, in `contrast`
REACH = 0.25  # of the width, from the middle of the picture, within which the centre is looked for
APART = 0.02  # of the width; two centres nearer than this are one
OVERLAP = 0.1  # of the field of view; a centre about which less of it meets its inversion is none
EDGE = 0.06  # of the width; holes and marks smaller than this do not shape the field of view
NOISE = 3.0  # standard deviations above the background below which a pixel counts as background
FLAT = 0.02  # of the range of grey values; a drawn mark varies less
PERIODIC = 0.15  # of the autocorrelation at 0; a lower maximum is no period of the spots


class Centre(NamedTuple):
    """A centre (x, y), and the next best one (`rival`, None if there is none) with how much worse it fits (`lead`).

    The fit is a correlation coefficient (-1 to 1) plus a share (0 to 1), see `find_centre`.
    """

    x: float
    y: float
    lead: float
    rival: tuple[float, float] | None


def averaged(values: np.ndarray, step: int) -> np.ndarray:
    """Means over squares of `step` x `step` pixels; what does not fill one at the right and below is left out."""
    height, width = (n // step for n in values.shape)
    blocks = values[: height * step, : width * step].reshape(height, step, width, step)
    return blocks.mean((1, 3), dtype=np.float64)


def _coarse(values: np.ndarray) -> tuple[np.ndarray, int]:
    """`values` averaged so that no side is longer than `COARSE` pixels, and the pixels averaged each way."""
    step = max(1, -(-max(values.shape) // COARSE))
    return averaged(values, step), step


def contrast(values: np.ndarray, seen: np.ndarray) -> float:
    """Positive for bright spots on a dark background, negative for dark ones; below 0.3 either way it is not clear.

    The sum of three measures. The logarithm, within +-3, of how much more bright than dark blobs weigh: the determinant
    of the second derivatives where both curvatures have one sign, so that beam stops, edges and stripes, curved one
    way only, count little. `FADING` times how much brighter the middle of the picture is than its outer ring, as a
    share of its range: what electrons make fades outwards. And how much nearer the median is to the dark end of the
    range than to the bright one: most pixels are background. Pixels that are not `seen`, bool (y, x), do not count.
    """
    small, _ = _coarse(np.where(seen, values, np.median(values[seen])))
    shown = _coarse(seen)[0] > 0.5
    bright, dark = (float(np.sum(_blobs(sign * small) ** 2)) for sign in (1, -1))
    least = 1e-12 * (bright + dark) + 1e-300
    blobs = np.clip(np.log((bright + least) / (dark + least)), -3, 3)
    low, middle, high = np.percentile(small[shown], [0.5, 50, 99.5])
    y, x = (np.arange(n) - (n - 1) / 2 for n in small.shape)
    radius = np.hypot(y[:, None], x) / min(small.shape)
    inner, outer = shown & (radius < 0.25), shown & (radius > 0.3) & (radius < 0.48)
    if high == low or not inner.any() or not outer.any():
        return float(blobs)
    fading = np.clip((small[inner].mean() - small[outer].mean()) / (high - low), -1, 1)
    return float(blobs + FADING * fading + (high + low - 2 * middle) / (high - low))


def _blob_size(small: np.ndarray) -> float:
    """`BLOB` in pixels of this coarse picture: spots of a small picture are small, but not below a pixel."""
    return BLOB * float(np.clip(min(small.shape) / COARSE, 0.5, 1))


def _blobs(values: np.ndarray) -> np.ndarray:
    """How strongly a coarse picture is curved downwards both ways at each pixel, 0 elsewhere and along the border."""
    from scipy.ndimage import gaussian_filter

    sigma = _blob_size(values)
    yy, xx, xy = (gaussian_filter(values, sigma, order) for order in ((2, 0), (0, 2), (1, 1)))
    determinant = yy * xx - xy**2
    found = np.where((determinant > 0) & (yy + xx < 0), np.sqrt(np.abs(determinant)), 0)
    border = int(np.ceil(3 * sigma))
    inside = np.zeros(values.shape, bool)
    inside[border:-border, border:-border] = True
    return np.where(inside, found, 0)


def find_centre(values: np.ndarray, seen: np.ndarray | None = None) -> Centre:
    """The point about which a picture of bright spots is most nearly its own inversion (Friedel's law).

    Within a quarter of the width from the middle; no direct beam is needed, so a beam stop does no harm. The fit is the
    sum of two numbers: the correlation coefficient of the smoothed picture with its own inversion, over the part of the
    field of view that the two have in common (masked normalised correlation, Padfield 2012,
    10.1109/TIP.2011.2181402); and the share of the blobs' weight that finds a partner. The first knows background,
    rings and unequal spots, the second sharp spots in noise. `seen`: bool (y, x), pixels that count (all).
    """
    from scipy.ndimage import gaussian_filter

    seen = np.ones(values.shape, bool) if seen is None else seen
    small, step = _coarse(np.where(seen, values, np.median(values[seen])))
    shown = _coarse(seen)[0] > 0.5
    small = np.minimum(small, np.percentile(small, 99.9))
    blobs = _blobs(small)
    if (blobs > 0).any():
        blobs = np.maximum(blobs - 2 * np.median(blobs[blobs > 0]), 0)
    shown &= _field_of_view(small)[0]
    weight = np.sqrt(np.minimum(blobs, np.percentile(blobs, 99.9))) * shown
    smooth = gaussian_filter(np.clip(small, *np.percentile(small, [0.1, 99.9])), _blob_size(small))
    fit = _own_inversion(smooth, shown)
    if weight.any():
        fit = fit + _convolved(weight, weight) / np.sum(weight**2)
    y, x = (np.arange(n) - (n - 1) / 2 for n in fit.shape)  # twice the distance from the middle of the picture
    reach = 2 * REACH * min(small.shape)
    fit[(np.abs(y) > reach)[:, None] | (np.abs(x) > reach)] = -np.inf
    row, column = np.unravel_index(np.argmax(fit), fit.shape)
    best = fit[row, column]
    elsewhere = np.hypot(y[:, None] - y[row], x - x[column]) > 2 * APART * min(small.shape)
    other = np.unravel_index(np.argmax(np.where(elsewhere, fit, -np.inf)), fit.shape)
    lead = best - fit[other]

    # a pixel of the small picture is centred at step * i + (step - 1) / 2 of the large one
    def place(row: float, column: float) -> tuple[float, float]:
        return tuple(float(step * twice / 2 + (step - 1) / 2) for twice in (column, row))

    return Centre(
        *place(row + _summit(fit[:, column], row), column + _summit(fit[row], column)),
        float(lead),
        place(*other) if np.isfinite(lead) else None,
    )


def _summit(line: np.ndarray, peak: int) -> float:
    """Offset of the top of the parabola through a maximum and its neighbours."""
    if not 0 < peak < len(line) - 1:
        return 0.0
    before, top, after = line[peak - 1 : peak + 2]
    curvature = before - 2 * top + after
    return float(0.5 * (before - after) / curvature) if np.isfinite(curvature) and curvature < 0 else 0.0


def _convolved(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Full convolution: at 2 c the sum over pixels of `one` times `other` at the point opposite about c."""
    from scipy.signal import fftconvolve

    return fftconvolve(one, other)


def _own_inversion(values: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Correlation coefficient of a picture with its inversion about c, at 2 c, over pixels shown on both sides."""
    weight = shown.astype(np.float64)
    values = np.where(shown, values - values[shown].mean(), 0)
    count = np.maximum(_convolved(weight, weight), 1e-9)
    mean, square = _convolved(values, weight) / count, _convolved(values**2, weight) / count
    covariance = _convolved(values, values) / count - mean**2
    fit = covariance / np.maximum(square - mean**2, 1e-3 * (values**2).mean() + 1e-300)
    return np.where(count < OVERLAP * weight.sum(), -1.0, fit)


def _field_of_view(small: np.ndarray) -> tuple[np.ndarray, float]:
    """Pixels within the screen: not the dark corners around it, whose outline is not that of the pattern; bool (y, x).

    What is brighter than the darkest level, closed and opened with discs of `EDGE` and drawn in a little. Everything,
    if that is less than 30 % of the picture, as in one without background. Also returns which share of it is brighter.
    """
    from scipy.ndimage import distance_transform_edt, gaussian_filter

    size = min(small.shape)
    low, high = np.percentile(small, [0.1, 99.5])
    bright = gaussian_filter(small, 1) > low + FLAT * (high - low)
    if bright.all() or not bright.any():
        return np.ones(small.shape, bool), float(bright.mean())
    radius = EDGE * size
    pad = int(radius) + 1

    def grown(mask: np.ndarray) -> np.ndarray:
        return distance_transform_edt(~mask) <= radius if mask.any() else mask

    def shrunk(mask: np.ndarray, by: float) -> np.ndarray:
        return distance_transform_edt(mask) > by if not mask.all() else mask

    field = shrunk(shrunk(grown(np.pad(bright, pad, mode="edge")), radius), radius)
    field = shrunk(grown(field), 3 * size / COARSE)[pad:-pad, pad:-pad]
    if field.mean() <= 0.3:
        field = np.ones(small.shape, bool)
    return field, float(bright[field].mean())


def drawn_marks(values: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int, int, int]]]:
    """Pixels of scale bars and of what is written beside them, bool (y, x); and the bars as (x, y, width, height).

    A bar is an evenly white or black upright rectangle, at least four times as long as wide and 3 to 60 % of the
    picture's width long. Beside it are marks of its own grey within its length, each smaller than the bar.
    """
    from scipy.ndimage import binary_dilation, find_objects, label

    found, bars = np.zeros(values.shape, bool), []
    low, high = float(values.min()), float(values.max())
    size = min(values.shape)
    for level in (low, high):
        regions, _ = label(np.abs(values - level) <= FLAT * (high - low), np.ones((3, 3)))
        areas = np.bincount(regions.ravel())
        boxes = find_objects(regions)
        large = [n for n in np.flatnonzero(areas >= 0.06 * size) if n]
        for n in large:
            height, width = (side.stop - side.start for side in boxes[n - 1])
            long, short = max(height, width), min(height, width)
            if not (0.03 * size <= long <= 0.6 * size and long >= 4 * short and short > 1):
                continue
            if areas[n] < 0.9 * height * width:
                continue
            bars.append((boxes[n - 1][1].start, boxes[n - 1][0].start, width, height))
            near = tuple(slice(max(0, side.start - long), side.stop + long) for side in boxes[n - 1])
            for other in np.unique(regions[near]):
                if other and areas[other] <= areas[n]:
                    box = boxes[other - 1]
                    if max(side.stop - side.start for side in box) <= long:
                        found[box] |= regions[box] == other
    return (binary_dilation(found, np.ones((5, 5))) if bars else found), bars


def is_lonely(values: np.ndarray, counted: np.ndarray) -> bool:
    """Whether the brightest of the `counted` pixels, bool (y, x), has not a twentieth of it at the opposite point.

    `values` are centred, without background. An opposite point that is not counted says nothing.
    """
    from scipy.ndimage import maximum_filter

    bright = np.where(counted, values, 0)
    place = np.unravel_index(np.argmax(bright), bright.shape)
    opposite = maximum_filter(bright, 3)[::-1, ::-1][place]
    return bool(counted[::-1, ::-1][place] and opposite < 0.05 * bright[place])


def screen(values: np.ndarray) -> np.ndarray:
    """Pixels of a picture of bright spots that are not the dark surroundings of a round screen, bool (y, x).

    All of them where spots lie on black, since then nothing shows where the screen ends.
    """
    small, step = _coarse(values)
    field, lit = _field_of_view(small)
    if lit < 0.9:
        return np.ones(values.shape, bool)
    field = np.kron(field, np.ones((step, step), bool))
    return np.pad(field, [(0, n - m) for n, m in zip(values.shape, field.shape, strict=True)], mode="edge")


def subtract_background(
    values: np.ndarray, centre: tuple[float, float], counted: np.ndarray | None = None
) -> np.ndarray:
    """Values less the median of their ring about `centre` (x, y); what is within `NOISE` deviations of it becomes 0.

    Rings are one pixel wide, the innermost wider; the deviation is the median one, times 1.4826 as for a normal
    distribution. Spots must cover less than half of every ring. Pixels that are not `counted`, bool (y, x), become 0.
    """
    from scipy.ndimage import median

    y, x = np.indices(values.shape)
    ring = np.maximum(np.hypot(x - centre[0], y - centre[1]).astype(int), 3)
    if counted is not None:
        ring = np.where(counted, ring, ring.max() + 1)
    rings = np.arange(ring.max() + 1)
    level = np.nan_to_num(median(values, ring, rings))
    above = values - level[ring]
    spread = 1.4826 * np.nan_to_num(median(np.abs(above), ring, rings))
    found = above > NOISE * spread[ring]
    return np.where(found if counted is None else found & counted, above, 0).astype(np.float32)


def spot_width(values: np.ndarray, centre: tuple[float, float], hidden: float) -> float:
    """Standard deviation [px] of the spots of a picture without background, the square pixel taken off.

    From the half width of the picture's autocorrelation, which for Gaussian spots is a Gaussian wider by sqrt(2); what
    is nearer to `centre` than `hidden` [px] does not count, since a direct beam may be saturated.
    """
    y, x = np.indices(values.shape)
    seen = np.where(np.hypot(x - centre[0], y - centre[1]) >= hidden, values, 0)
    correlation = _autocorrelation(seen)
    profile = correlation[0, : min(seen.shape)] + correlation[: min(seen.shape), 0]
    if profile[0] <= 0:
        return 0.0
    below = np.flatnonzero(profile < 0.5 * profile[0])
    if not len(below):
        return 0.0
    last = below[0] - 1
    half = last + (profile[last] - 0.5 * profile[0]) / (profile[last] - profile[last + 1])
    return float(np.sqrt(max(0.0, half**2 / (4 * np.log(2)) - 1 / 12)))


def spot_spacing(values: np.ndarray) -> float:
    """Shortest distance [px] at which spots repeat: nearest maximum of the autocorrelation; infinite without one."""
    from scipy.ndimage import maximum_filter

    correlation = np.fft.fftshift(_autocorrelation(values))
    middle = [n // 2 for n in correlation.shape]
    y, x = np.indices(correlation.shape)
    distance = np.hypot(y - middle[0], x - middle[1])
    peaks = (correlation == maximum_filter(correlation, 3)) & (correlation > PERIODIC * correlation.max())
    return float(distance[peaks & (distance > 1.2)].min(initial=np.inf))


def _autocorrelation(values: np.ndarray) -> np.ndarray:
    """Autocorrelation of a picture in black surroundings, distance 0 first, twice its shape."""
    twice = [2 * n for n in values.shape]
    return np.fft.irfft2(np.abs(np.fft.rfft2(values, twice)) ** 2, twice)
