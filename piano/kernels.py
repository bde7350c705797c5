"""The loops of the solvers in utils.py that numpy has no function for; numba compiles them.

Every array is laid out frame first, so that a frame's whole state stays in a core's cache for all its sweeps.
"""

import numpy as np

from piano import blocks

# Of coordinate descent. First all activations of a frame are updated, then those that are not zero until they are at
# rest, then all once more, which ends it if they are.
DONE, NONZERO, ALL = range(3)  # state of a frame: which of its activations are updated next
AT_REST = 1e-5  # of the largest activation of a frame: where none moves by more; 1e-3 is no quicker, and 70 dB off


def compiled(kernel, dtype):
    """A kernel of this module for arrays of ``dtype``, float32 or float64, and their complex counterpart."""
    return blocks.compiled(kernel, types(kernel, dtype))


def types(kernel, dtype):
    """Types of its arguments, as numba reads them."""
    return TYPES[kernel].format(real=np.dtype(dtype), complex=np.result_type(dtype, np.complex64))


def descend_gram(A, G, U, decrease, stop):
    """Carry every frame through its sweeps; numba compiles this. A, U (M, L); G (L, L).

    U is written in place. To ``decrease`` is added by how much each sweep lowers 1/2 |V - H U|^2. A frame is left
    where no activation moves by ``AT_REST`` of the largest.
    """
    floor = np.sqrt(np.finfo(U.dtype).tiny)
    E = np.empty(U.shape[1], U.dtype)
    for m in range(len(U)):
        if stop[0]:
            return
        for l in range(len(E)):
            E[l] = A[m, l]
        for l in range(len(E)):
            if U[m, l] > 0:
                for j in range(len(E)):
                    E[j] -= G[l, j] * U[m, l]
        for i in range(len(decrease)):
            moved, largest = 0.0, 0.0
            for l in range(len(E)):
                u = U[m, l] + E[l] / G[l, l]
                if u < floor:
                    u = U.dtype.type(0)
                step = u - U[m, l]
                if step != 0:
                    decrease[i] += max(0.0, np.float64(step) * (E[l] - step * G[l, l] / 2))
                    for j in range(len(E)):
                        E[j] -= G[l, j] * step
                    U[m, l] = u
                moved, largest = max(moved, abs(step)), max(largest, u)
            if moved <= AT_REST * largest:
                break


def descend_bins(V, H, column_sums, rate, quiet, half, floor, S, U, state, i):
    """Sweep i of every frame; numba compiles this. V, S (M, K); H (L, K); U, rate (M, L); quiet, state (M,).

    U, its S = H U + floor and ``state`` are written in place. The divergence is that of 0.5 where it is to be ``half``,
    and else Kullback and Leibler's.
    """
    smallest = np.sqrt(np.finfo(V.dtype).tiny)
    zero, one = H.dtype.type(0), H.dtype.type(1)
    for m in range(len(V)):
        if state[m] == DONE:
            continue
        v, s = V[m], S[m]
        s[:] = floor
        for l in range(len(H)):
            h, u = H[l], U[m, l]
            if u > zero:
                for k in range(len(h)):
                    s[k] += h[k] * u
        moved, largest = 0.0, 0.0
        for l in range(len(H)):
            u = U[m, l]
            if u == zero and state[m] == NONZERO:
                continue
            h, a, b, c = H[l], zero, zero, zero
            if half:
                for k in range(len(h)):
                    root = one / np.sqrt(s[k])
                    over_root = h[k] * root
                    of_model = over_root * root
                    of_sound = of_model * root * v[k]
                    a += over_root
                    b += of_sound
                    c += of_sound * of_model
            else:
                a = column_sums[l]
                for k in range(len(h)):
                    of_model = h[k] / s[k]
                    of_sound = of_model * v[k]
                    b += of_sound
                    c += of_sound * of_model
            if c > zero:
                a *= one + rate[m, l] / (one + u * a / quiet[m])
                factor = c * u / (c * u + (a - b)) if b < a else b / a
                if half:  # to the power of q
                    factor = np.cbrt(factor * factor)
                new = u * factor if b < a else u + (factor - one) * b / c
                if new < smallest:
                    new = zero
                step = new - u
                if step != zero:
                    U[m, l] = new
                    for k in range(len(h)):
                        s[k] = max(s[k] + h[k] * step, floor)  # rounding could make it negative
                moved = max(moved, abs(step) * column_sums[l])
                largest = max(largest, new * column_sums[l])
        if moved <= AT_REST * largest:
            state[m] = ALL if state[m] == NONZERO else DONE
        elif i >= 5:  # most of what stays zero is zero after six sweeps
            state[m] = NONZERO


def sweep_frames(Y, H, G, U, P, F, error, penalty, weight, p, stop):
    """Carry every frame of a block through all its sweeps; numba compiles this.

    One sweep is Kameoka's [2]_ with beta and X eliminated; with Q = S P + Y - F::

        P <- Q / |Q|,  or 1 or -1 where Q = 0
        U <- U * sum_k H |Q| / (H^T S + weight p U^(p-1))

    Where Q = 0 the cost is the same for any phase; without one, F would lack that component from then on.
    A frame's state, L x K phases, stays in a core's cache for all its sweeps. A row l is updated and then added
    to the next F and S while it is still at hand, two rows at a time to halve the traffic of F and S.
    Silent frames keep their phases. Everything is laid out frame first: Y, F (M, K); H (L, K); G = H^T H (L, L);
    U (M, L); P (M, L, K); error, penalty (M, n_iter). U, P, F, error (``sum |Y - F|^2``) and penalty
    (``sum U^p``) are written in place; once ``stop[0]`` is set it returns. Rows are padded with zeros to a whole
    number of vectors, and to an even number of rows.
    """
    zero, one, tiny = H.dtype.type(0), H.dtype.type(1), np.finfo(H.dtype).tiny
    root = np.sqrt(tiny)  # keeps |Q| from zero, and is lost in rounding elsewhere
    n_frames, n_components, n_bins = P.shape
    n_rows, width = n_components + n_components % 2, -(-n_bins // 16) * 16
    h = np.zeros((n_rows, width), H.dtype)
    for l in range(n_components):  # an array put in place of a part of another takes two seconds more to compile
        for k in range(n_bins):
            h[l, k] = H[l, k]
    P_re, P_im = np.zeros((2, n_rows, width), H.dtype)
    Y_re, Y_im, F_re, F_im, D_re, D_im, S, S_next = np.zeros((8, width), H.dtype)
    u = np.zeros(n_rows, H.dtype)
    slope, below = np.ones((2, n_rows), H.dtype)
    for m in range(n_frames):
        if not Y[m].any():
            U[m], F[m], error[m], penalty[m] = zero, zero, zero, zero
            continue
        F_re[:], F_im[:], S_next[:] = zero, zero, zero
        for k in range(n_bins):
            Y_re[k], Y_im[k] = Y[m, k].real, Y[m, k].imag
        for l in range(n_components):
            u[l] = U[m, l]
            slope[l] = max(u[l], tiny) ** (p - one)
            for k in range(n_bins):
                P_re[l, k], P_im[l, k] = P[m, l, k].real, P[m, l, k].imag
                F_re[k] += h[l, k] * u[l] * P_re[l, k]
                F_im[k] += h[l, k] * u[l] * P_im[l, k]
                S_next[k] += h[l, k] * u[l]

        for i in range(error.shape[1]):
            if stop[0]:
                return
            for k in range(width):
                D_re[k], D_im[k], S[k] = Y_re[k] - F_re[k], Y_im[k] - F_im[k], S_next[k]
            F_re[:], F_im[:], S_next[:] = zero, zero, zero
            for l in range(n_components):  # H^T S = G U
                total = weight * p * slope[l] + tiny
                for j in range(n_components):
                    total += G[l, j] * u[j]
                below[l] = total
            for l in range(0, n_rows, 2):
                for j in range(l, l + 2):
                    h_j, re_j, im_j = h[j], P_re[j], P_im[j]
                    total = zero
                    for k in range(width):
                        Q_re, Q_im = S[k] * re_j[k] + D_re[k], S[k] * im_j[k] + D_im[k]
                        Q_re += np.copysign(root, Q_re)  # before |Q|, so that P has length 1 whatever Q is
                        square = Q_re * Q_re + Q_im * Q_im
                        inverse = one / np.sqrt(square)
                        total += h_j[k] * (square * inverse)
                        cos, sin = Q_re * inverse, Q_im * inverse
                        re_j[k] = cos if abs(cos) > root else zero
                        im_j[k] = sin if abs(sin) > root else zero
                    total *= u[j] / below[j]
                    u[j] = total if total > root else zero
                h_0, re_0, im_0, u_0 = h[l], P_re[l], P_im[l], u[l]
                h_1, re_1, im_1, u_1 = h[l + 1], P_re[l + 1], P_im[l + 1], u[l + 1]
                for k in range(width):
                    A_0, A_1 = h_0[k] * u_0, h_1[k] * u_1
                    F_re[k] += A_0 * re_0[k] + A_1 * re_1[k]
                    F_im[k] += A_0 * im_0[k] + A_1 * im_1[k]
                    S_next[k] += A_0 + A_1
            distance = total_p = 0.0
            for k in range(width):
                re, im = np.float64(Y_re[k] - F_re[k]), np.float64(Y_im[k] - F_im[k])
                distance += re * re + im * im
            for l in range(n_components):
                slope[l] = max(u[l], tiny) ** (p - one)
                total_p += u[l] * slope[l]
            error[m, i], penalty[m, i] = distance, total_p

        for k in range(n_bins):
            F[m, k] = complex(F_re[k], F_im[k])
        for l in range(n_components):
            U[m, l] = u[l]
            for k in range(n_bins):
                P[m, l, k] = complex(P_re[l, k], P_im[l, k])


TYPES = {
    descend_gram: "void({real}[:, ::1], {real}[:, ::1], {real}[:, ::1], float64[::1], boolean[::1])",
    descend_bins: (
        "void({real}[:, ::1], {real}[:, ::1], {real}[::1], {real}[:, ::1], {real}[::1], boolean, {real}, "
        "{real}[:, ::1], {real}[:, ::1], int64[::1], int64)"
    ),
    sweep_frames: (
        "void({complex}[:, ::1], {real}[:, ::1], {real}[:, ::1], {real}[:, ::1], {complex}[:, :, ::1], "
        "{complex}[:, ::1], float64[:, ::1], float64[:, ::1], {real}, {real}, boolean[::1])"
    ),
}
