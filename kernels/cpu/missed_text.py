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
        x[i] = {motion}(T(0), {states})


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
        y[i] = {motion}(T(0), {states})
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

FOLLOWING = """

@njit(**OPTIONS)
def follow_{shape}(p, x, d, {scalars}{numbers}):
    for i in range(p.size):
        p[i] = {followed}


@njit(**OPTIONS)
def follow_{shape}_some(p, x, d, {every}):
    for i in range(p.size):
        q = p[i]
{lines}
        p[i] = q
"""

REACH = """# The largest motion as a share of its parameter, at most 1; infinite for NaN.
@njit(**OPTIONS)
def reach_of(p, x):
    reach = {least}
    for i in range(p.size):
        size, whole = np.abs(x[i]), np.abs(p[i])
        share = size / (size if size > whole else whole)
        share = T(np.inf) if share != share else share
        share = T(0) if size == T(0) else share
        reach = {larger}
    return D({reach})

"""

RESTING = """

@njit(**OPTIONS)
def rest(p{numbers}):
    for i in range(p.size):
        p[i] = {rested}


@njit(**OPTIONS)
def rest_some(p{every}):
    for i in range(p.size):
        q = p[i]
{lines}
        p[i] = q
"""

REST = """while steps + {together} <= now + 1:
    rest_some({p}{at_once})
    steps += {together}
while steps <= now:
    past = np.uint64(steps) & ring
    rest({p}{here})
    steps += 1
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
reach, total = reach_of({p}, {x}), 1.0
while not reach * total * fading[{peak}, past] < {least}:
    until = min(steps + {span}, now)
    ratio, count = 1.0, np.intp(until - steps)
    if count < {few}:
        go({p}, {x}{here})
        steps += 1
        if count == 0:
            break
{fades}
        past = np.uint64(steps) & ring
        motions({x}, {at_past})
        continue
    {saved} = {products}
    lag, together = 1.0, 0.0
    for j in range(count):
        ratios[j], lags[j] = T(ratio), lag
        together += ratio
{fades}
        past = np.uint64(steps + j + 1) & ring
        ratio *= history[{ratio}, past]
        lag *= history[{lag}, past]
    shape = changes({p}, {x}, {y}, {d}, T(1 / ratio), T(together), {at_past})
    if shape > U(1):
        take({z}, {p})
    if shape == U(0):
{flat}
    else:
        # How far each step is on the way.
        share = 1 / (lag - 1) if lag != 1 else 0.0
        for j in range(count):
            shares[j] = T((lags[j] - 1) * share)
{straight}
    if shape > U(1):
        {products} = {saved}
        for j in range(count):
            past = np.uint64(steps + j) & ring
            motions({x}, {at_past})
            go({z}, {x}{here})
{again}
        choose({p}, {d}, {z})
    turn = 1 - turn
    total *= ratio
    steps = until
    past = np.uint64(steps) & ring
"""

ALONG = """j = 0
while j + {together} <= count:
    follow_{shape}_some({p}, {x}, {d}, {at_once})
    j += {together}
while j < count:
    past = np.uint64(steps + j) & ring
    follow_{shape}({p}, {x}, {d}, {at_j}{here})
    j += 1"""
