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


def adaptation_sweep(V, H, U, prior):
    """``U <- U * (H^T (V / S))`` and ``H <- normalise(H * (N + prior) / (D + c H))`` at once; c is the prior's sum.

    ``N = sum_m beta H U V / S`` and ``D = sum_m beta H U``, with the shares beta among all columns but noise, the last.
    """
    found = U * (H.T @ (V / (H @ U)))
    parts, beta = np.einsum("kl,lm->lkm", H, U), np.pad(shares(H[:, :-1], U[:-1]), ((0, 1), (0, 0), (0, 0)))
    N = np.einsum("lkm,lkm,km->kl", beta, parts, V / (H @ U))
    D = np.einsum("lkm,lkm->kl", beta, parts)
    adapted = H * np.divide(N + prior, D + prior.sum(axis=0) * H, out=np.zeros_like(H), where=D > 0)
    return adapted / np.maximum(adapted.sum(axis=0), np.finfo(float).tiny), found


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


def kullback_leibler_descent(V, H, U, rate=0.0, quiet=1.0):
    """One sweep of coordinate descent, each activation with the ones before it.

    ``U_l <- U_l + (b / a - 1) b / c`` where b >= a, or else ``U_l <- c U_l^2 / (c U_l + a - b)``. With S = H U,
    ``b = sum H V / S``, ``c = sum H^2 V / S^2`` and ``a = sum H (1 + rate / (1 + U sum H / quiet))``.
    """
    U, rate = U.copy(), np.broadcast_to(rate, U.shape)
    for l, h in enumerate(H.T):
        S = H @ U
        a = h.sum() * (1 + rate[l] / (1 + U[l] * h.sum() / quiet))
        b, c = h @ (V / S), h**2 @ (V / S**2)
        U[l] = np.where(b < a, c * U[l] ** 2 / (c * U[l] + np.abs(a - b)), U[l] + (b / a - 1) * b / c)
    return U


def log_penalty(H, U, rate, quiet):
    """``sum rate quiet log(1 + a / quiet)`` with ``a_lm = U_lm sum_k H_kl``."""
    return np.sum(rate * quiet * np.log(1 + U * H.sum(axis=0)[:, None] / quiet))


def luminance(colour):
    """Relative luminance of sRGB colours [shape=(..., 3)], WCAG 2."""
    colour = np.asarray(colour)[..., :3]
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    return linear @ [0.2126, 0.7152, 0.0722]
