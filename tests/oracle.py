"""The equations as they stand in the papers, with every tensor in memory: what the quick versions must equal."""

import numpy as np


def nmf_update(Y, H, U):
    """``U <- U * (H^T Y) / (H^T H U)``."""
    return U * (H.T @ Y) / (H.T @ H @ U)


def kullback_leibler_update(V, H, U):
    """``U <- U * (H^T (V / H U)) / (H^T 1)``."""
    return U * (H.T @ (V / (H @ U))) / (H.T @ np.ones_like(V))


def itakura_saito_update(V, H, U, floor):
    """``U <- U * ((H^T (V / S^2)) / (H^T (1 / S)))^(1/2)``, V and S = H U both on a floor."""
    S = H @ U + floor
    return U * ((H.T @ ((V + floor) / S**2)) / (H.T @ (1 / S))) ** 0.5


def adaptation_sweep(V, H, U, prior, floor):
    """``U <- U * (H^T (W V / S) / (H^T W))`` and ``H <- normalise(H * (N + prior) / (D + c H))`` at once.

    c is the prior's sum; ``N = sum_m beta H U W V / S`` and ``D = sum_m beta H U W``, with the shares beta among all
    columns but noise, the last, and ``W = (S / unit)^(-1/2)``. V and S stand on the floor, of each frame's unit.
    """
    unit = frame_unit(V)
    S = H @ U + floor * unit
    W = (S / unit) ** -0.5
    R = W * (V + floor * unit) / S
    parts, beta = np.einsum("kl,lm->lkm", H, U), np.pad(shares(H[:, :-1], U[:-1]), ((0, 1), (0, 0), (0, 0)))
    N, D = (np.einsum("lkm,lkm,km->kl", beta, parts, of_bins) for of_bins in (R, W))
    adapted = H * np.divide(N + prior, D + prior.sum(axis=0) * H, out=np.zeros_like(H), where=D > 0)
    return adapted / np.maximum(adapted.sum(axis=0), np.finfo(float).tiny), U * (H.T @ R) / (H.T @ W)


def model(H, U, P):
    """``F_km = sum_l H_kl U_lm P_lkm``."""
    return np.einsum("kl,lm,lkm->km", H, U, P)


def shares(H, U):
    """``beta_lkm = H_kl U_lm / sum_l H_kl U_lm``."""
    return np.einsum("kl,lm->lkm", H, U) / np.einsum("kl,lm->km", H, U)


def components(Y, H, U, P):
    """``X_lkm = H_kl U_lm P_lkm + beta_lkm (Y_km - F_km)``."""
    return np.einsum("kl,lm,lkm->lkm", H, U, P) + shares(H, U) * (Y - model(H, U, P))


def complex_sweep(Y, H, U, P, weight, p):
    """One sweep of Kameoka et al. (2009): beta, X, then P and U."""
    beta, X = shares(H, U), components(Y, H, U, P)
    P = X / np.abs(X)
    above = np.einsum("kl,lkm,lkm->lm", H, 1 / beta, np.abs(X))
    below = np.einsum("kl,lkm->lm", H**2, 1 / beta) + weight * p * U ** (p - 2)
    return above / below, P


def objective(Y, H, U, P, weight, p):
    """``sum |Y - F|^2 + 2 weight sum U^p``."""
    return np.sum(np.abs(Y - model(H, U, P)) ** 2) + 2 * weight * np.sum(U**p)


def descent(V, H, U, rate=0.0, quiet=1.0, *, beta=1.0, floor=0.0):
    """One sweep of coordinate descent, each activation with the ones before it, where S = H U + floor.

    ``U_l <- U_l + ((b / a)^q - 1) b / c`` where b >= a, or else ``U_l <- U_l (c U_l / (c U_l + a - b))^q``, with
    q = 1 / (2 - beta), ``b = sum H V S^(beta-2)``, ``c = sum H^2 V S^(beta-3)`` and ``a = s (1 + rate / (1 + U s /
    quiet))``, where ``s = sum H S^(beta-1)``.
    """
    U, rate, q = U.copy(), np.broadcast_to(rate, U.shape), 1 / (2 - beta)
    for l, h in enumerate(H.T):
        S = H @ U + floor
        a = h @ S ** (beta - 1)
        a *= 1 + rate[l] / (1 + U[l] * a / quiet)
        b, c = h @ (V * S ** (beta - 2)), h**2 @ (V * S ** (beta - 3))
        lower = U[l] * (c * U[l] / (c * U[l] + np.abs(a - b))) ** q
        U[l] = np.where(b < a, lower, U[l] + ((b / a) ** q - 1) * b / c)
    return U


def half_descent(V, H, U, rate=0.0, quiet=1.0, *, floor):
    """:func:`descent` of beta 1/2, each frame in a unit of its own, where V stands on the floor, too."""
    unit = frame_unit(V)
    return unit * descent(V / unit + floor, H, U / unit, rate, quiet / unit, beta=0.5, floor=floor)


def half_divergence(V, S, floor):
    """Beta-divergence of beta 1/2 in these units, as Fevotte and Idier have it, added up over frames."""
    unit, beta = frame_unit(V), 0.5
    V, S = V / unit + floor, S / unit + floor
    of_bins = (V**beta + (beta - 1) * S**beta - beta * V * S ** (beta - 1)) / (beta * (beta - 1))
    return np.sum(unit * of_bins)


def frame_unit(V):
    """The power of two just above ``sum V^2 / sum V`` of each frame; 1 for silence."""
    loud = np.sum(V**2, axis=0) / np.where(V.any(axis=0), V.sum(axis=0), 1)
    return np.where(loud > 0, 2.0 ** (np.floor(np.log2(np.where(loud > 0, loud, 1))) + 1), 1)


def log_penalty(H, U, rate, quiet):
    """``sum rate quiet log(1 + a / quiet)`` with ``a_lm = U_lm sum_k H_kl``."""
    return np.sum(rate * quiet * np.log(1 + U * H.sum(axis=0)[:, None] / quiet))


def luminance(colour):
    """Relative luminance of sRGB colours [shape=(..., 3)], WCAG 2."""
    colour = np.asarray(colour)[..., :3]
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
