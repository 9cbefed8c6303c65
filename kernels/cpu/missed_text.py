"""The text of rows that make up for missed steps; `missed_source` fills it in."""

REPLAY = """{gradient} = part(nothing, 0, 0, width)
steps = np.int64(last[row])
while steps < now:
    steps += 1
    past = np.uint64(steps) & ring
{lines}"""

AROUND = """{catch_up}
last[row] = now
if reading:
    if out.shape[0] > 0:
        for other in range(i, end):
            at = np.intp(keys[other] & mask)
            copy_merged(part(out, at, 0, width), part({parameter}, row, 0, width))
else:
{update}
    last[row] = now + 1"""

FADE = """

@njit(**OPTIONS)
def faded(x, product):
    return _normal(x * T(product) if product >= {tiny} else T(D(x) * product))


@njit(**OPTIONS)
def fade(x, product):
    if product >= {tiny}:
        for i in range(x.size):
            x[i] = _normal(x[i] * T(product))
    else:
        for i in range(x.size):
            x[i] = _normal(T(D(x[i]) * product))
"""
"""What becomes of states in some steps; a product that float32 does not hold is not rounded."""

FUNCTIONS = """

@njit(**OPTIONS)
def motions(x, {given}):
    for i in range(x.size):
        x[i] = {motion}(T(0), {states}) + T(0)  # no zero with a sign


{reach}
# The motions y, and how much more than x they are, beside their first part: zero where all of it
# together is too little to count. Tells whether some are not zero (1), and whether some change too
# much to go straight, or are too small to be trusted (3).
@njit(**OPTIONS)
def changes(p, x, y, d, ratio, together, {given}):
    shape = U(0)
    for i in range(x.size):
{aged}
        y[i] = {motion}(T(0), {old}) + T(0)
        change = y[i] * ratio - x[i]
        size, least = np.abs(change), T({flat}) * np.abs(p[i])
        flat = size * together <= least
        straight = size <= T({straight}) * np.abs(x[i])
        small = (y[i] != T(0)) & (np.abs(y[i]) < T({faint})) & (np.abs(x[i]) * together > least)
        d[i] = T(0) if flat else change
        lost = small{lost}
        shape |= U(3) if lost | (not (flat | straight)) else U(0) if flat else U(1)
    return shape
"""

STEPS = """

@njit(**OPTIONS)
def {name}(p, {given}numbers, count):
    done = 0
    while done + {together} <= count:
{read_some}
        for i in range(p.size):
            q = p[i]
{lines}
            p[i] = q
        done += {together}
    while done < count:
{read}
        for i in range(p.size):
            q = p[i]
{line}
            p[i] = q
        done += 1
"""
"""Some steps at once while an element is in a register; ``numbers`` has those of each step."""

REACH = """# The largest motion as a share of its parameter, at most 1; infinite for NaN. By
# their bits: vectors have no largest float but one that treats NaN in its own way.
@njit(**OPTIONS)
def reach_of(p, x):
    reach = U(0)
    for i in range(p.size):
        size, whole = np.abs(x[i]), np.abs(p[i])
        share = size / (size if size > whole else whole)
        share = T(np.inf) if share != share else share
        share = T(0) if size == T(0) else share
        reach = bits(share) if bits(share) > reach else reach
    return D(real(reach))

"""

REST = """first = steps + 1
while first <= goal:
    count = np.intp(min({span}, goal + 1 - first))
    for j in range(count):
        past = np.uint64(first + j) & ring
{fill}
    rest({p}, part(numbers, 0, 0, numbers.shape[1]), count)
    first += count
"""

FOLLOW = """steps = np.int64(last[row])
while steps < now:
    since = np.uint64(steps) & ring
    goal = min(ends[since], now)
    again = max(min(goal - steps, {few}), 1)
    if goal - steps > {few}:
{follow}
    {gradient} = part(nothing, 0, 0, width)
    for _ in range(again):
        steps += 1
        past = np.uint64(steps) & ring
{step}"""
"""Stretch by stretch; ``again`` says how many steps are then taken one by one."""

SETTLE = """{rest}{fades}
steps, again = goal, np.int64(0)
"""
"""To the end of a stretch, where nothing moves the parameter any more."""

MOTION = """turn, past, again, before = 0, np.uint64(steps + 1) & ring, np.int64(0), steps
{ones}
motions({x}, {at_past})
reach, covered, nth = np.inf, 1.0, 1.0
if goal - steps > {span}:  # few end within the first of these
    reach = reach_of({p}, {x})
while steps < goal and not reach * covered * products[{sum}, past] < {least}:
    left = goal - steps
    if products[{sum}, past] > {long} or min({products}, 1.0) < {faint}:
        again = min({span}, left)
        break
    # All that are left, or as many as leave more than a few.
    last_ones = left <= {span}
    count = np.intp(left - 1 if last_ones else min({span}, left - {few} - 1))
    {saved} = {products}
    ratio, lag, together = 1.0, 1.0, 0.0
    for j in range(count):
        numbers[0, j], lags[j] = T(ratio), lag
        together += ratio
        at = past + np.uint64(j)
{fades}
        ratio *= factors[{ratio}, at + np.uint64(1)]
        lag *= factors[{lag}, at + np.uint64(1)]
    past = np.uint64(steps + 1 + count) & ring
    shape = U(3)
    if together < {vast} and ratio < {vast} and lag < {vast}:
        back = 1 / ratio if ratio > 0 else 0.0
        weight = together * (nth * nth)
        shape = changes({p}, {x}, {y}, {d}, T(back), T(weight), {at_past})
    taken = count
    if last_ones:
        numbers[0, count], lags[count] = T(ratio), lag
        taken += 1
    if shape > U(1):
        {products} = {saved}
        again = np.int64(taken)
        break
    for j in range(taken):
{fill}
    if shape == U(0):
        follow_flat({p}, {x}, {d}, part(numbers, 0, 0, numbers.shape[1]), taken)
    else:
        # How far each step is on the way.
        share = 1 / (lag - 1) if lag > 1 else 0.0
        for j in range(taken):
            numbers[0, {span} + j] = T((lags[j] - 1) * share)
        follow_straight({p}, {x}, {d}, part(numbers, 0, 0, numbers.shape[1]), taken)
    turn = 1 - turn
    covered *= ratio
    nth += 1
    steps += taken
if again == 0:
{settle}
elif steps > before:
{faded}
"""
