"""The text of rows that make up for missed steps; `missed_source` fills it in."""

REPLAY = """total = part(nothing, 0, 0, width)
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
            take(part(out, at, 0, width), part({parameter}, row, 0, width))
else:
{update}
    last[row] = now + 1"""

SCALE = """

@njit(**OPTIONS)
def fade(x, factor):
    for i in range(x.size):
        x[i] *= factor
"""

FUNCTIONS = """

@njit(**OPTIONS)
def motions(x, {given}):
    for i in range(x.size):
        x[i] = {motion}(T(0), {states}) + T(0)  # no zero with a sign


{reach}
@njit(**OPTIONS)
def go(p, x{numbers}):
    for i in range(p.size):
        p[i] = {gone}


# The motions y, and how much more than x they are, beside the motion of large states: zero where
# all of it together is too little to count, NaN where it is too much to go straight. Tells whether
# some are not zero (1), and some NaN (2).
@njit(**OPTIONS)
def changes(p, x, y, d, ratio, together, {given}):
    shape = U(0)
    for i in range(x.size):
        y[i] = {motion}(T(0), {states}) + T(0)
        change = y[i] * ratio - x[i]
        size = np.abs(change)
        flat = size * together <= T({flat}) * np.abs(p[i])
        straight = size <= T({straight}) * np.abs(x[i])
        d[i] = T(0) if flat else change if straight else T(np.nan)
        shape |= U(0) if flat else U(1) if straight else U(3)
    return shape


@njit(**OPTIONS)
def choose(p, d, other):
    for i in range(p.size):
        p[i] = p[i] if d[i] == d[i] else other[i]
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

REST = """while steps <= now:
    count = np.intp(min({span}, now + 1 - steps))
    for j in range(count):
        past = np.uint64(steps + j) & ring
{fill}
    rest({p}, part(numbers, 0, 0, numbers.shape[1]), count)
    steps += count
"""

FOLLOW = """steps = np.int64(last[row])
if steps < now:
    since = np.uint64(steps) & ring
    steps += 1
    if now - steps < {few}:
        total = part(nothing, 0, 0, width)
        while steps <= now:
            past = np.uint64(steps) & ring
{step}
            steps += 1
    else:
{motion}{rest}{fades}"""
"""A few steps are taken one by one, as they would have been."""

MOTION = """turn, past = 0, np.uint64(steps) & ring
{ones}
motions({x}, {at_past})
reach, total = np.inf, 1.0
if now - steps >= {span}:  # few end within the first of these
    reach = reach_of({p}, {x})
while not reach * total * fading[{peak}, past] < {least}:
    until = min(steps + {span}, now)
    ratio, count = 1.0, np.intp(until - steps)
    if count < {few}:
        go({p}, {x}{here})
        steps += 1
        if count == 0:
            break
        at = past
{fades}
        past = np.uint64(steps) & ring
        motions({x}, {at_past})
        continue
    {saved} = {products}
    lag, together = 1.0, 0.0
    for j in range(count):
        numbers[0, j], lags[j] = T(ratio), lag
        together += ratio
        at = past + np.uint64(j)
{fades}
        ratio *= paces[{ratio}, at + np.uint64(1)]
        lag *= paces[{lag}, at + np.uint64(1)]
{fill}
    past = np.uint64(until) & ring
    shape = changes({p}, {x}, {y}, {d}, T(1 / ratio), T(together), {at_past})
    if shape > U(1):
        take({z}, {p})
    if shape == U(0):
        follow_flat({p}, {x}, {d}, part(numbers, 0, 0, numbers.shape[1]), count)
    else:
        # How far each step is on the way.
        share = 1 / (lag - 1) if lag != 1 else 0.0
        for j in range(count):
            numbers[0, {span} + j] = T((lags[j] - 1) * share)
        follow_straight({p}, {x}, {d}, part(numbers, 0, 0, numbers.shape[1]), count)
    if shape > U(1):
        {products} = {saved}
        for j in range(count):
            past = np.uint64(steps + j) & ring
            motions({x}, {at_past})
            go({z}, {x}{here})
            at = past
{again}
        choose({p}, {d}, {z})
    turn = 1 - turn
    total *= ratio
    steps = until
    past = np.uint64(steps) & ring
"""
