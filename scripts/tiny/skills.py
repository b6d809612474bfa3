"""The skills: arithmetic, comparing, sorting, words, capitals, units and multiple choice.

A skill function takes a random generator and returns a Problem: the question in a user's
words, the working for each effort, the final answer and how to check it.  `key` names the
instance (operands, word, list ...), independent of the wording: held-out instances are chosen
by a hash of it.
"""
from facts import CAPITALS, FRUITS, PEOPLE, THINGS


class Problem:
    def __init__(self, skill, key, question, work, final, check, answer=None, wrong=None,
                 ask=None):
        self.skill = skill          # name in the reports
        self.key = key              # instance, for the held-out hash
        self.question = question    # the user's text
        self.work = work            # effort -> analysis text
        self.final = final          # final answer text
        self.check = check          # how evaluate.py judges an answer
        self.answer = answer        # short answer, for multiple choice
        self.wrong = wrong          # rng -> a wrong short answer
        self.ask = ask              # neutral question for multiple choice


# ---- wording -------------------------------------------------------------------------------

OPEN = ["please ", "can you tell me ", "could you tell me ", "tell me ", "hey, ", "hi, ",
        "i need to know ", "quick question: ", "quick: ", "question: ", "ok, ", "so, ", "now ",
        "do you know ", "i wonder ", "help me: ", "and ", "hello, ", "well, ", "let me ask: "]
CLOSE = [" please", " thanks", ", please", " for me", ", thank you", " then", " now"]


def dress(rng, core, question=True):
    """A user's way to write a core sentence: opening, closing, case, punctuation."""
    s = core
    r = rng.random()
    if r < 0.16:
        s = rng.choice(OPEN) + s
    if rng.random() < 0.08:
        s = s + rng.choice(CLOSE)
    r = rng.random()
    if r < 0.66:
        s = s[0].upper() + s[1:]
    elif r < 0.7:
        s = s.upper() if "{" not in s and len(s) < 40 and rng.random() < 0.2 else s
    end = rng.random()
    if question:
        s += "?" if end < 0.76 else "" if end < 0.92 else "." if end < 0.94 else " ?"
    else:
        s += "." if end < 0.5 else "" if end < 0.9 else "!" if end < 0.93 else "?"
    return s


def pick(rng, asks, orders, **kw):
    """A question (from asks) or an order (from orders) with its slots filled."""
    if not orders or (asks and rng.random() < 0.65):
        return dress(rng, rng.choice(asks).format(**kw), True)
    return dress(rng, rng.choice(orders).format(**kw), False)


# ---- digit work ----------------------------------------------------------------------------

def spell(n, width=0):
    return " ".join(str(n).zfill(width))


PLACE = ["Ones", "Tens", "Hundreds", "Thousands", "Next", "Next", "Next"]


def add_columns(a, b, full=False):
    """Column addition, right to left.  Short form `7+5=12, 2+8+1=11`."""
    w = max(len(str(a)), len(str(b)))
    x, y = str(a).zfill(w)[::-1], str(b).zfill(w)[::-1]
    out, carry = [], 0
    for i in range(w):
        t = int(x[i]) + int(y[i]) + carry
        s = f"{x[i]}+{y[i]}" + ("+1" if carry else "") + f"={t}"
        carry = t // 10
        if full:
            s = f"{PLACE[i]}: {s}, write {t % 10}, carry {carry}." if i < w - 1 else \
                f"{PLACE[i]}: {s}."
        out.append(s)
    return (" " if full else ", ").join(out) + ("" if full else ".")


def sub_columns(a, b, full=False):
    """Column subtraction for a >= b: `2-5=-3+10=7, 1-8-1=-8+10=2`."""
    w = max(len(str(a)), len(str(b)))
    x, y = str(a).zfill(w)[::-1], str(b).zfill(w)[::-1]
    out, borrow = [], 0
    for i in range(w):
        t = int(x[i]) - int(y[i]) - borrow
        s = f"{x[i]}-{y[i]}" + ("-1" if borrow else "") + f"={t}"
        borrow = int(t < 0)
        if borrow:
            s += f"+10={t + 10}"
        if full:
            s = f"{PLACE[i]}: {s}" + (", borrow 1." if borrow else ".")
        out.append(s)
    return (" " if full else ", ").join(out) + ("" if full else ".")


def mul_columns(a, d, full=False):
    """a times one digit: `3*7=21, 2*7=14+2=16`."""
    x = str(a)[::-1]
    out, carry = [], 0
    for i, c in enumerate(x):
        t = int(c) * d
        s = f"{c}*{d}={t}"
        if carry:
            s += f"+{carry}={t + carry}"
        t += carry
        carry = t // 10
        if full:
            s = f"{PLACE[i]}: {s}, write {t % 10}, carry {carry}." if i < len(x) - 1 else \
                f"{PLACE[i]}: {s}."
        out.append(s)
    return (" " if full else ", ").join(out) + ("" if full else ".")


def digits_compare(a, b):
    """`1=1, 2<3` over zero-padded digits up to the first difference."""
    w = max(len(str(a)), len(str(b)))
    out = []
    for c, d in zip(str(a).zfill(w), str(b).zfill(w)):
        out.append(c + ("=" if c == d else "<" if c < d else ">") + d)
        if c != d:
            break
    return ", ".join(out)


def add_work(a, b, effort):
    w = max(len(str(a)), len(str(b)))
    head = f"{spell(a, w)} + {spell(b, w)}: "
    if effort == "low":
        return head + add_columns(a, b) + f" {spell(a + b)}, {a + b}."
    s = f"Add {a} and {b}. " + head + add_columns(a, b, True)
    s += f" The digits are {spell(a + b)}, so {a} + {b} = {a + b}."
    if effort == "high":
        c = a + b
        w = max(len(str(c)), len(str(b)))
        s += f" Check: {spell(c, w)} - {spell(b, w)}: " + sub_columns(c, b)
        s += f" {spell(a)}, {a}. Right."
    return s


def sub_work(a, b, effort):
    w = max(len(str(a)), len(str(b)))
    head = f"{spell(a, w)} - {spell(b, w)}: " + digits_compare(a, b)
    full = effort != "low"
    s = f"Take {b} from {a}. " if full else ""
    s += head
    if a == b:
        s += ", same. 0."
        if full:
            s += f" So {a} - {b} = 0."
        if effort == "high":
            s += f" Check: 0 + {b} = {b}. Right."
        return s
    if a > b:
        s += ". "
        big, small = a, b
    else:
        s += f", swap. {spell(b, w)} - {spell(a, w)}: "
        big, small = b, a
    d = big - small
    s += sub_columns(big, small, full)
    if full:
        s += f" The digits are {spell(d, w)}, that is {d}"
        s += ", with a minus sign" if a < b else ""
        s += f", so {a} - {b} = {a - b}."
    else:
        s += f" {spell(d, w)}, {d}" + (f", {a - b}." if a < b else ".")
    if effort == "high":
        w2 = max(len(str(d)), len(str(small)))
        s += f" Check: {spell(d, w2)} + {spell(small, w2)}: " + add_columns(d, small)
        s += f" {spell(big)}, {big}. Right."
    return s


def mul_line(a, b, full):
    """a times one digit b, in columns, ending with the product."""
    if a == 0 or b == 0:
        return f"{a} * {b} is 0."
    s = f"{spell(a)} * {b}: " + mul_columns(a, b, full)
    return s + f" {spell(a * b)}, {a * b}."


def mul_work(a, b, effort):
    full = effort != "low"
    x, y = (a, b) if b < 10 or a >= 10 and len(str(a)) >= len(str(b)) else (b, a)
    s = f"Multiply {a} by {b}. " if full else ""
    if y < 10:
        s += mul_line(x, y, full)
    else:
        t, u = y // 10, y % 10
        p, q = x * u, x * t
        s += f"{y} is {t} 0 and {u}. " if full else ""
        s += mul_line(x, u, False) + " " + mul_line(x, t, False) + f" {q * 10}. "
        w = max(len(str(p)), len(str(q * 10)))
        s += f"{spell(p, w)} + {spell(q * 10, w)}: " + add_columns(p, q * 10)
        s += f" {spell(a * b)}, {a * b}."
    if full:
        s += f" So {a} * {b} = {a * b}."
    if effort == "high":
        s += f" Check: the last digits give {x % 10}*{y % 10}={(x % 10) * (y % 10)}, "
        s += f"so the product ends in {x * y % 10}, and {a * b} does. Right."
    return s


# ---- arithmetic ----------------------------------------------------------------------------

def number(rng, digits=None):
    d = digits or rng.choice((1, 2, 2, 2, 3, 3, 3, 3))
    return rng.randrange(0 if d == 1 else 10 ** (d - 1), 10 ** d)


UNITS_W = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen").split()
TENS_W = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()


def in_words(n):
    if n < 20:
        return UNITS_W[n]
    return TENS_W[n // 10] + ("-" + UNITS_W[n % 10] if n % 10 else "")


ADD_ASK = ["what is {a} + {b}", "what's {a}+{b}", "what is {a}+{b}", "{a} + {b} =", "{a}+{b}=",
           "{a} + {b}", "{a}+{b}", "what is {a} plus {b}", "what's {a} plus {b}",
           "how much is {a} + {b}", "how much is {a} plus {b}", "what is the sum of {a} and {b}",
           "what does {a} + {b} equal", "{a} plus {b} is", "{a} plus {b}", "whats {a} + {b}",
           "what do you get when you add {a} and {b}", "what is {a} and {b} together",
           "what is {a} added to {b}", "{a} and {b} makes", "what is {b} more than {a}",
           "what does {a} plus {b} make", "can you add {a} and {b}", "what is {a} + {b} equal to",
           "{a} + {b} equals", "what's the sum of {a} and {b}", "what's the total of {a} and {b}",
           "how much do {a} and {b} make", "what's {a} + {b}", "what would {a} + {b} be"]
ADD_ORDER = ["add {a} and {b}", "add {b} to {a}", "compute {a} + {b}", "calculate {a} + {b}",
             "calculate {a}+{b}", "please add {a} and {b}", "work out {a} + {b}",
             "sum {a} and {b}", "give me {a} + {b}", "find {a} + {b}", "solve {a} + {b}",
             "find the sum of {a} and {b}", "calculate the sum of {a} and {b}",
             "compute the sum of {a} and {b}", "add up {a} and {b}", "{a} + {b} = ?",
             "evaluate {a} + {b}", "tell me the sum of {a} and {b}", "solve: {a} + {b} = ?"]
ADD_STORY = ["{p} has {a} {t} and gets {b} more. How many {t} does {p} have now?",
             "I have {a} {t} and buy {b} more. How many {t} do I have?",
             "There are {a} {t} in one box and {b} in another. How many {t} are there in all?",
             "{p} reads {a} pages today and {b} pages tomorrow. How many pages is that in total?",
             "A shop sold {a} {t} on Monday and {b} on Tuesday. How many {t} did it sell?"]
SUB_ASK = ["what is {a} - {b}", "what's {a}-{b}", "what is {a}-{b}", "{a} - {b} =", "{a}-{b}=",
           "{a} - {b}", "{a}-{b}", "what is {a} minus {b}", "what's {a} minus {b}",
           "how much is {a} - {b}", "how much is {a} minus {b}", "what does {a} - {b} equal",
           "{a} minus {b}", "what is {b} less than {a}", "what is {a} take away {b}",
           "whats {a} - {b}", "what do you get when you subtract {b} from {a}",
           "what remains of {a} after taking away {b}", "what is left when {b} is taken from {a}",
           "{a} minus {b} is", "{a} - {b} equals", "can you subtract {b} from {a}",
           "what's {a} - {b}", "what does {a} minus {b} make", "what is {a} - {b} equal to"]
SUB_ORDER = ["subtract {b} from {a}", "take {b} away from {a}", "compute {a} - {b}",
             "calculate {a} - {b}", "calculate {a}-{b}", "work out {a} - {b}", "{a} - {b} = ?",
             "please subtract {b} from {a}", "take {b} from {a}", "give me {a} - {b}",
             "solve {a} - {b}", "find {a} - {b}", "evaluate {a} - {b}",
             "compute {a} minus {b}", "calculate {a} minus {b}", "solve: {a} - {b} = ?"]
SUB_STORY = ["{p} has {a} {t} and gives away {b}. How many {t} are left?",
             "I had {a} {t} and lost {b}. How many do I have left?",
             "There were {a} {t} and {b} were sold. How many {t} remain?",
             "A book has {a} pages and {p} has read {b}. How many pages are left?"]
MUL_ASK = ["what is {a} * {b}", "what's {a}*{b}", "what is {a} x {b}", "{a} * {b} =", "{a}*{b}=",
           "{a} * {b}", "{a} x {b}", "what is {a} times {b}", "what's {a} times {b}",
           "how much is {a} * {b}", "how much is {a} times {b}", "{a} times {b}",
           "what is the product of {a} and {b}", "what is {a} multiplied by {b}",
           "whats {a} x {b}", "what does {a} * {b} equal", "{a}*{b}", "{a}x{b}",
           "what do you get when you multiply {a} by {b}", "{a} times {b} is", "{a} x {b} =",
           "can you multiply {a} by {b}", "what's the product of {a} and {b}",
           "what is {a} * {b} equal to", "{a} * {b} equals", "what's {a} * {b}",
           "what's {a} x {b}", "what is {a}*{b}"]
MUL_ORDER = ["multiply {a} by {b}", "multiply {a} and {b}", "compute {a} * {b}",
             "calculate {a} * {b}", "calculate {a} x {b}", "work out {a} times {b}",
             "{a} * {b} = ?", "{a} x {b} = ?", "find the product of {a} and {b}",
             "give me {a} times {b}", "solve {a} * {b}", "find {a} * {b}",
             "compute {a} times {b}", "evaluate {a} * {b}", "calculate {a} times {b}"]
MUL_STORY = ["{p} buys {b} boxes with {a} {t} each. How many {t} is that?",
             "There are {b} bags and each has {a} {t}. How many {t} are there in all?",
             "One ticket costs {a} dollars. How much do {b} tickets cost?"]
BARE = [" Only give the number.", " Just the number please.", " Answer with the number only.",
        " Reply with only the number.", " Give only the result."]


def near_number(ans):
    """Wrong answers near a right one, for multiple choice."""
    def wrong(rng):
        while True:
            w = ans + rng.choice((1, -1, 2, -2, 10, -10, 9, -9, 11, 5, -5, 20, -20, 100, -100,
                                  rng.randrange(-30, 31)))
            if w != ans and (w >= 0 or ans < 0):
                return str(w)
    return wrong


def arithmetic(rng, skill, a, b, op, value, asks, orders, stories, key, work, story_ok):
    r = rng.random()
    final = f"{a} {op} {b} = {value}."
    if r < 0.1 and story_ok:
        q = rng.choice(stories).format(a=a, b=b, p=rng.choice(PEOPLE), t=rng.choice(THINGS))
    else:
        words = a < 100 and b < 100 and rng.random() < 0.06
        q = pick(rng, asks, orders, a=in_words(a) if words else a, b=in_words(b) if words else b)
        if rng.random() < 0.05:
            q += rng.choice(BARE)
            final = str(value)
    return Problem(skill, key, q, work, final, {"type": "number", "value": value},
                   str(value), near_number(value), f"What is {a} {op} {b}?")


def add_chain(rng):
    """Three or four numbers to add."""
    ns = [number(rng, rng.choice((1, 2, 2, 3))) for _ in range(rng.choice((3, 3, 4)))]
    total = sum(ns)
    expr = rng.choice([" + ", " + ", "+"]).join(map(str, ns))
    listed = ", ".join(map(str, ns[:-1])) + " and " + str(ns[-1])
    if rng.random() < 0.6:
        q = dress(rng, rng.choice(["what is {e}", "what's {e}", "{e}", "{e} =", "how much is {e}"])
                  .format(e=expr))
    else:
        q = pick(rng, ["what is the sum of {l}", "what is the total of {l}",
                       "how much are {l} together"],
                 ["add {l}", "add up {l}", "sum {l}", "calculate " + expr], l=listed)

    def work(effort):
        t, parts = ns[0], []
        for n in ns[1:]:
            w = max(len(str(t)), len(str(n)))
            parts.append(f"{spell(t, w)} + {spell(n, w)}: " + add_columns(t, n) +
                         f" {spell(t + n)}, {t + n}.")
            t += n
        if effort == "low":
            return " ".join(parts)
        out = f"Add {listed}, one after the other. " + " ".join(parts)
        out += f" The sum is {total}."
        if effort == "high":
            ends = [n % 10 for n in ns]
            out += f" Check: the last digits are {', '.join(map(str, ends))}, their sum is "
            out += f"{sum(ends)}"
            out += f", it ends in {total % 10}, and so does {total}. Right."
        return out

    return Problem("addition", "+".join(map(str, sorted(ns))), q, work,
                   " + ".join(map(str, ns)) + f" = {total}.", {"type": "number", "value": total},
                   str(total), near_number(total), f"What is {' + '.join(map(str, ns))}?")


def addition(rng):
    if rng.random() < 0.1:
        return add_chain(rng)
    a, b = number(rng), number(rng)
    if rng.random() < 0.07:
        a, b = number(rng, rng.choice((3, 4, 5))), number(rng, rng.choice((4, 5)))
    key = "%d+%d" % (min(a, b), max(a, b))
    return arithmetic(rng, "addition", a, b, "+", a + b, ADD_ASK, ADD_ORDER, ADD_STORY, key,
                      lambda e: add_work(a, b, e), a > 1 and b > 1)


def subtraction(rng):
    a, b = number(rng), number(rng)
    if rng.random() < 0.06:
        a, b = number(rng, 4), number(rng, rng.choice((2, 3, 4)))
    if a < b and rng.random() < 0.55:
        a, b = b, a
    if rng.random() < 0.02:
        b = a
    return arithmetic(rng, "subtraction", a, b, "-", a - b, SUB_ASK, SUB_ORDER, SUB_STORY,
                      "%d-%d" % (a, b), lambda e: sub_work(a, b, e), a > b > 1)


def multiplication(rng):
    """Tables up to 12 x 12 and two digits (at times three) times one."""
    if rng.random() < 0.1:
        while True:
            p = easy_products(rng)
            if p.skill == "multiplication":
                return p
    r = rng.random()
    if r < 0.35:
        a, b = rng.randrange(0, 13), rng.randrange(0, 13)
    elif r < 0.9:
        a, b = rng.randrange(10, 100), rng.randrange(2, 10)
    else:
        a, b = rng.randrange(100, 1000), rng.randrange(2, 10)
    if rng.random() < 0.35:
        a, b = b, a
    key = "%d*%d" % (min(a, b), max(a, b))
    return arithmetic(rng, "multiplication", a, b, "*", a * b, MUL_ASK, MUL_ORDER, MUL_STORY,
                      key, lambda e: mul_work(a, b, e), a > 1 and b > 1)


def easy_products(rng):
    """Doubles, halves and squares."""
    r = rng.random()
    if r < 0.4:
        a = number(rng)
        q = pick(rng, ["what is double {a}", "what is twice {a}", "what is the double of {a}",
                       "what is two times {a}", "how much is twice {a}", "double of {a}"],
                 ["double {a}", "double the number {a}", "calculate twice {a}"], a=a)
        b, key = 2, f"2x{a}"
    elif r < 0.7:
        a = b = rng.randrange(2, 100)
        q = pick(rng, ["what is the square of {a}", "what is {a} squared", "what is {a}^2",
                       "{a} squared",
                       "{a}^2", "how much is {a} squared", "what is {a} times itself"],
                 ["square {a}", "square the number {a}", "compute {a}^2", "calculate {a} squared"],
                 a=a)
        key = f"sq{a}"
    else:
        a = rng.randrange(1, 500) * 2
        q = pick(rng, ["what is half of {a}", "what is the half of {a}", "how much is half of {a}",
                       "half of {a}", "what is one half of {a}"],
                 ["halve {a}", "give me half of {a}", "calculate half of {a}"], a=a)
        h = a // 2

        def half(effort):
            line = div_line(a, 2)
            if effort == "low":
                return line
            s = f"Half of {a} is {a} / 2. {line} So {a} / 2 = {h}."
            return s + (" Check: " + mul_line(h, 2, False) + " Right." if effort == "high" else "")

        return Problem("division", f"half{a}", q, half, f"{a} / 2 = {h}.",
                       {"type": "number", "value": h},
                       str(h), near_number(h), f"What is half of {a}?")
    v = a * b
    return Problem("multiplication" if b < 10 else "multiplication 2x2", key, q,
                   lambda e: mul_work(a, b, e), f"{a} * {b} = {v}.", {"type": "number", "value": v},
                   str(v), near_number(v), f"What is {a} * {b}?")


def parity(rng):
    n = number(rng, rng.choice((1, 2, 3, 4)))
    even = n % 2 == 0
    ask_even = rng.random() < 0.5
    w = "even" if ask_even else "odd"
    r = rng.random()
    if r < 0.7:
        q = dress(rng, rng.choice(["is {n} {w}", "is {n} an {w} number", "is the number {n} {w}",
                                   "is {n} {w} or not", "{n} is {w}, right"]).format(n=n, w=w))
        yes = even == ask_even
        final = f"{'Yes' if yes else 'No'}, {n} is {'even' if even else 'odd'}."
        check = {"type": "yesno", "value": yes}
    else:
        q = dress(rng, rng.choice(["is {n} even or odd", "is {n} odd or even", "even or odd: {n}",
                                   "is the number {n} even or odd"]).format(n=n))
        final = f"The number {n} is {'even' if even else 'odd'}."
        check = {"type": "contains", "value": "even" if even else "odd"}

    def work(effort):
        line = f"{n}: last digit {n % 10}, {'even' if even else 'odd'}."
        if effort == "low":
            return line
        s = f"A number is even if its last digit is 0, 2, 4, 6 or 8. {line}"
        return s + (f" Check: the digits are {spell(n)}, the last is {n % 10}. Right."
                    if effort == "high" else "")

    return Problem("comparing", f"par{n}", q, work, final, check)


def line_of(a, op, b):
    """One short step with result, for any signs."""
    if op == "*":
        return mul_work(a, b, "low")
    if op == "-":
        a, b = a, -b
    # now a + b with signs
    if a >= 0 and b >= 0:
        return add_work(a, b, "low")
    if a >= 0:
        return sub_work(a, -b, "low")
    if b >= 0:
        return f"{b} - {-a}: " + sub_work(b, -a, "low")
    return f"-({-a} + {-b}): " + add_work(-a, -b, "low") + f" {a + b}."


EXPR_ASK = ["what is {e}", "what's {e}", "{e}", "{e} =", "how much is {e}", "what does {e} make"]
EXPR_ORDER = ["calculate {e}", "compute {e}", "work out {e}", "evaluate {e}", "solve {e}",
              "{e} = ?"]


def expressions(rng):
    """Two operations with precedence and parentheses, negative numbers, one decimal place."""
    r = rng.random()
    n = lambda: rng.randrange(1, 100) if rng.random() < 0.7 else rng.randrange(1, 10)
    d = lambda: rng.randrange(2, 10)
    steps = []
    if r < 0.2:      # a +- b +- c
        a, b, c = n(), n(), n()
        o1, o2 = rng.choice("+-"), rng.choice("+-")
        if o1 == o2 == "+":
            o2 = "-"
        m = a + b if o1 == "+" else a - b
        v = m + c if o2 == "+" else m - c
        e = f"{a} {o1} {b} {o2} {c}"
        steps = [f"{a} {o1} {b}: {line_of(a, o1, b)}", f"{m} {o2} {c}: {line_of(m, o2, c)}"]
        if rng.random() < 0.2:
            word = {"+": "plus", "-": "minus"}
            e2 = f"{a} {word[o1]} {b} {word[o2]} {c}"
        else:
            e2 = e
    elif r < 0.4:    # a + b * c, a - b * c
        a, b, c = n(), n(), d()
        o = rng.choice("+-")
        m = b * c
        v = a + m if o == "+" else a - m
        e = e2 = f"{a} {o} {b} * {c}"
        steps = [f"{b} * {c} first: {line_of(b, '*', c)}", f"{a} {o} {m}: {line_of(a, o, m)}"]
    elif r < 0.55:   # a * b + c
        a, b, c = n(), d(), n()
        o = rng.choice("+-")
        m = a * b
        v = m + c if o == "+" else m - c
        e = e2 = f"{a} * {b} {o} {c}"
        steps = [f"{a} * {b} first: {line_of(a, '*', b)}", f"{m} {o} {c}: {line_of(m, o, c)}"]
    elif r < 0.75:   # (a +- b) * c and c * (a +- b)
        a, b, c = n(), n(), d()
        o = rng.choice("++-")
        if o == "-" and a < b:
            a, b = b, a
        m = a + b if o == "+" else a - b
        v = m * c
        e = f"({a} {o} {b}) * {c}" if rng.random() < 0.6 else f"{c} * ({a} {o} {b})"
        e2 = e
        steps = [f"{a} {o} {b} first: {line_of(a, o, b)}", f"{m} * {c}: {line_of(m, '*', c)}"]
    elif r < 0.9:    # negative numbers
        a, b = n(), n()
        if rng.random() < 0.6:
            a = -a
            b = b if rng.random() < 0.7 else -b
        else:
            b = -b
        o = rng.choice("+-")
        v = a + b if o == "+" else a - b
        e = f"{a} {o} {b}"
        if b < 0 and rng.random() < 0.5:
            e = f"{a} {o} ({b})"
        e2 = e
        if b < 0:
            o2 = "-" if o == "+" else "+"
            steps = [f"{a} {o2} {-b}: {line_of(a, o2, -b)}"]
        else:
            steps = [f"{a} {o} {b}: {line_of(a, o, b)}"]
    else:            # one decimal place
        a, b = rng.randrange(1, 400), rng.randrange(1, 400)
        o = rng.choice("++-")
        if o == "-" and a < b:
            a, b = b, a
        v = a + b if o == "+" else a - b
        x, y, z = (f"{k // 10}.{k % 10}" for k in (a, b, v))
        e = e2 = f"{x} {o} {y}"

        def work_d(effort):
            line = f"In tenths {a} {o} {b}: {line_of(a, o, b)} Tenths: {z}."
            if effort == "low":
                return line
            s = f"Compute {e}. {line} So {e} = {z}."
            return s + (f" Check: both have one digit after the point, {v} tenths are {z}. Right."
                        if effort == "high" else "")

        q = pick(rng, EXPR_ASK, EXPR_ORDER, e=e)
        return Problem("expressions", e, q, work_d, f"{e} = {z}.",
                       {"type": "contains", "value": f" {z}."})
    if rng.random() < 0.25:
        e2 = e2.replace(" ", "") if "plus" not in e2 and "minus" not in e2 else e2
    if rng.random() < 0.15:
        e2 = e2.replace("*", "x")
    q = pick(rng, EXPR_ASK, EXPR_ORDER, e=e2)

    def work(effort):
        if effort == "low":
            return " ".join(steps)
        s = f"Compute {e} step by step. " + " ".join(steps) + f" So {e} = {v}."
        if effort == "high":
            s += f" Check: {len(steps)} step{'s' if len(steps) > 1 else ''} done, "
            s += "in the right order"
            s += f", the last gives {v}. Right."
        return s

    return Problem("expressions", e, q, work, f"{e} = {v}.", {"type": "number", "value": v}, str(v),
                   near_number(v), f"What is {e}?")


def sequences(rng):
    """The next number of an arithmetic sequence, and counting from a to b."""
    if rng.random() < 0.6:
        step = rng.choice((1, 2, 2, 3, 4, 5, 5, 10, 10, rng.randrange(2, 13), -1, -2, -5, -10))
        k = rng.choice((3, 4, 4, 5, 6))
        start = rng.randrange(0, 60) if step > 0 else rng.randrange(-step * k, 150)
        ns = [start + step * i for i in range(k)]
        v = start + step * k
        text = ", ".join(map(str, ns)) + rng.choice(["", "", ", ...", ", ?"])
        q = pick(rng, ["what comes next: {l}", "what is the next number: {l}",
                       "what number comes next: {l}",
                       "which number comes next in {l}", "what comes after {l}",
                       "{l}, what is next"],
                 ["continue: {l}", "continue the sequence {l}", "give the next number: {l}",
                  "find the next number in {l}", "complete the sequence {l}"], l=text)
        diffs = ", ".join(f"{b}-{a}={b - a}" for a, b in zip(ns, ns[1:]))

        def work(effort):
            last = f"{ns[-1]}{'+' if step > 0 else '-'}{abs(step)}={v}."
            if effort == "low":
                return f"{ns[1]}-{ns[0]}={step}. {last}"
            s = f"The sequence is {', '.join(map(str, ns))}. Steps: {diffs}. "
            s += f"{last} The next is {v}."
            return s + (f" Check: {v}-{ns[-1]}={step}, the same step. Right."
                        if effort == "high" else "")

        return Problem("sequences", ",".join(map(str, ns)), q, work, f"The next number is {v}.",
                       {"type": "number", "value": v}, str(v), near_number(v),
                       f"What comes next: {text}?")
    a = rng.choice((0, 1, 1, 1, rng.randrange(2, 90)))
    k = rng.randrange(3, 16)
    b = a + k
    down = rng.random() < 0.25
    if down:
        a, b = b, a
    out = list(range(a, b + 1)) if not down else list(range(a, b - 1, -1))
    q = pick(rng, ["can you count from {a} to {b}", "what are the numbers from {a} to {b}"],
             ["count from {a} to {b}", "count {a} to {b}", "list the numbers from {a} to {b}",
              "write the numbers from {a} to {b}", "give me the numbers {a} to {b}"] +
             (["count to {b}"] * 2 if a == 1 else []) +
             (["count down from {a} to {b}"] * 2 if down else []),
             a=a, b=b)
    text = ", ".join(map(str, out))

    def work(effort):
        if effort == "low":
            return f"{a} to {b}, step {'-1' if down else '1'}."
        s = f"Count from {a} to {b} in steps of {'-1' if down else '1'}: {text}."
        return s + (f" Check: the first is {a}, the last is {b}, {len(out)} numbers. Right."
                    if effort == "high" else "")

    return Problem("sequences", f"{a}..{b}", q, work, text, {"type": "list", "value": out})


def multiplication_long(rng):
    """Two digits times two digits."""
    if rng.random() < 0.1:
        while True:
            p = easy_products(rng)
            if p.skill == "multiplication 2x2":
                return p
    a, b = rng.randrange(11, 100), rng.randrange(11, 100)
    key = "%d*%d" % (min(a, b), max(a, b))
    return arithmetic(rng, "multiplication 2x2", a, b, "*", a * b, MUL_ASK, MUL_ORDER,
                      MUL_STORY, key, lambda e: mul_work(a, b, e), True)


DIV_ASK = ["what is {a} / {b}", "what's {a}/{b}", "what is {a} divided by {b}", "{a} / {b} =",
           "{a} / {b}", "{a}/{b}", "how much is {a} / {b}", "how much is {a} divided by {b}",
           "{a} divided by {b}", "what's {a} divided by {b}", "how many times does {b} go into {a}",
           "what do you get when you divide {a} by {b}", "{a} : {b}", "can you divide {a} by {b}"]
DIV_ORDER = ["divide {a} by {b}", "compute {a} / {b}", "calculate {a} / {b}", "{a} / {b} = ?",
             "work out {a} / {b}", "calculate {a} divided by {b}", "find {a} / {b}",
             "solve {a} / {b}"]
DIV_STORY = ["{a} {t} are shared by {b} children. How many does each child get?",
             "{p} puts {a} {t} into {b} equal boxes. How many {t} are in each box?"]


def division(rng):
    """Up to three digits by one digit, mostly exact, else with a remainder."""
    if rng.random() < 0.1:
        while True:
            p = easy_products(rng)
            if p.skill == "division":
                return p
    b = rng.randrange(2, 10) if rng.random() < 0.93 else 1
    r = rng.random()
    if r < 0.75:
        a = b * rng.randrange(1, 13 if r < 0.3 else 112)
    else:
        a = rng.randrange(2, 1000 if rng.random() < 0.5 else 100)
    q, rem = divmod(a, b)
    p = arithmetic(rng, "division", a, b, "/", q, DIV_ASK, DIV_ORDER, DIV_STORY, f"{a}/{b}",
                   None, rem == 0 and b > 1)

    def work(effort):
        line = div_line(a, b)
        if rem:
            line = line[:-1] + f" remainder {rem}."
        if effort == "low":
            return line
        s = f"Divide {a} by {b}, digit by digit. {line} "
        s += f"So {a} / {b} = {q}" + (f" remainder {rem}." if rem else ".")
        if effort == "high":
            s += " Check: " + mul_line(q, b, False)
            if rem:
                w = len(str(a))
                s += f" {spell(q * b, w)} + {spell(rem, w)}: " + add_columns(q * b, rem) + f" {a}."
            s += " Right."
        return s

    p.work = work
    if rem:
        p.final = f"{a} / {b} = {q} remainder {rem}."
        p.check = {"type": "number", "value": rem, "also": q}
        p.answer = f"{q} remainder {rem}"
        p.wrong = lambda g: f"{max(0, q + g.choice((-1, 0, 1, 2)))} remainder {g.randrange(0, b)}"
    elif q:
        p.wrong = near_unit(q)
    return p


# ---- comparing and sorting -----------------------------------------------------------------

CMP_YES = [("is {a} {big} than {b}", 1), ("is {a} {small} than {b}", -1),
           ("is {a} > {b}", 1), ("is {a} < {b}", -1), ("{a} > {b}", 1), ("{a} < {b}", -1),
           ("is it true that {a} is {big} than {b}", 1), ("is {a} {small} than {b} or not", -1),
           ("would you say {a} is {big} than {b}", 1), ("is {a} more than {b}", 1),
           ("is {a} less than {b}", -1), ("true or false: {a} is {big} than {b}", 1),
           ("is the number {a} {big} than {b}", 1), ("is the number {a} {small} than {b}", -1)]
CMP_WHICH = [("which is {big}, {a} or {b}", 1), ("which is {small}, {a} or {b}", -1),
             ("which number is {big}: {a} or {b}", 1), ("what is {big}, {a} or {b}", 1),
             ("which number is {small}: {a} or {b}", -1), ("which one is {big}, {a} or {b}", 1),
             ("which one is {small}, {a} or {b}", -1), ("which is more, {a} or {b}", 1),
             ("which is less, {a} or {b}", -1), ("{a} or {b}, which is {big}", 1),
             ("{a} or {b}, which is {small}", -1), ("what is the {big} number, {a} or {b}", 1),
             ("of {a} and {b}, which is {big}", 1), ("of {a} and {b}, which is {small}", -1),
             ("compare {a} and {b}: which is {big}", 1),
             ("between {a} and {b}, which is {small}", -1)]


def comparing_decimals(rng):
    """Which of 9.11 and 9.9 is larger."""
    i = rng.randrange(0, 30)
    j = i if rng.random() < 0.6 else rng.randrange(0, 30)
    f = lambda: str(rng.randrange(0, 10 ** rng.choice((1, 2)))).zfill(rng.choice((1, 1, 2)))[-2:]
    x, y = f(), f()
    xs, ys = x.ljust(2, "0"), y.ljust(2, "0")
    if (i, xs) == (j, ys):
        return comparing_decimals(rng)
    a, b = f"{i}.{x}", f"{j}.{y}"
    more = (i, xs) > (j, ys)
    t, sign = rng.choice(CMP_WHICH)
    q = dress(rng, t.format(a=a, b=b, big=rng.choice(("bigger", "larger", "greater")),
                            small="smaller"))
    ans = a if more == (sign > 0) else b
    word = "larger" if sign > 0 else "smaller"
    w = max(len(str(i)), len(str(j)))
    u, v = str(i).zfill(w) + xs, str(j).zfill(w) + ys
    show = lambda n, fr: f"{spell(n, w)} . {' '.join(fr)}"

    def steps(u, v):
        out = []
        for c, d in zip(u, v):
            out.append(c + ("=" if c == d else "<" if c < d else ">") + d)
            if c != d:
                break
        return ", ".join(out)

    def work(effort):
        line = f"{show(i, xs)}, {show(j, ys)}: {steps(u, v)}."
        rel = ">" if more else "<"
        if effort == "low":
            return line + f" {a}{rel}{b}."
        s = f"Compare {a} and {b} with two digits after the point. The digits are {line}"
        s += f" So {a} is {'bigger' if more else 'smaller'} than {b}, {a}{rel}{b}."
        if effort == "high":
            s += f" Check the other way: {show(j, ys)}, {show(i, xs)}: {steps(v, u)}."
            s += f" {b}{'<' if more else '>'}{a}. Right."
        return s

    return Problem("comparing", f"{min(a, b)}?{max(a, b)}", q, work, f"The {word} number is {ans}.",
                   {"type": "contains", "value": f" {ans}."})


def comparing(rng):
    if rng.random() < 0.1:
        return parity(rng)
    if rng.random() < 0.1:
        return comparing_decimals(rng)
    d = rng.choice((1, 2, 2, 3, 3, 3, 4))
    a = number(rng, d)
    b = number(rng, d if rng.random() < 0.6 else None)
    r = rng.random()
    if r < 0.25:
        b = max(0, a + rng.choice((1, -1, 10, -10, 100, -100, 2, -2)))
    equal_q = rng.random() < 0.06
    if equal_q and rng.random() < 0.5:
        b = a
    while a == b and not equal_q:
        b = number(rng)
    big = rng.choice(("bigger", "larger", "greater", "bigger", "larger", "higher"))
    small = rng.choice(("smaller", "smaller", "less", "lower"))
    rel = "=" if a == b else "<" if a < b else ">"
    w = max(len(str(a)), len(str(b)))
    line = f"{spell(a, w)}, {spell(b, w)}: {digits_compare(a, b)}."
    key = "%d?%d" % (min(a, b), max(a, b))
    if equal_q:
        q = dress(rng, rng.choice(["is {a} equal to {b}", "are {a} and {b} equal",
                                   "is {a} the same as {b}", "{a} = {b}"]).format(a=a, b=b))
        yes = a == b
        final = f"Yes, {a} is equal to {b}." if yes else f"No, {a} is not equal to {b}."
        check = {"type": "yesno", "value": yes}
        goal = "equal"
    elif rng.random() < 0.5:
        t, sign = rng.choice(CMP_YES)
        q = dress(rng, t.format(a=a, b=b, big=big, small=small))
        yes = (a > b) == (sign > 0)
        word = big if sign > 0 else small
        if ">" in t or "<" in t or "more" in t or "less" in t or "true or" in t:
            word = "bigger" if sign > 0 else "smaller"
        final = f"Yes, {a} is {word} than {b}." if yes else f"No, {a} is not {word} than {b}."
        check = {"type": "yesno", "value": yes}
        goal = word
    else:
        t, sign = rng.choice(CMP_WHICH)
        q = dress(rng, t.format(a=a, b=b, big=big, small=small))
        ans = max(a, b) if sign > 0 else min(a, b)
        word = "larger" if sign > 0 else "smaller"
        final = f"The {word} number is {ans}."
        check = {"type": "number", "value": ans}
        goal = word
    names = {"=": "equal to", "<": "smaller than", ">": "bigger than"}
    back = {"=": "=", "<": ">", ">": "<"}[rel]

    def work(effort):
        if effort == "low":
            return line + f" {a}{rel}{b}."
        s = f"Compare {a} and {b}. The digits are {line} So {a} is {names[rel]} {b}, {a}{rel}{b}."
        if effort == "high":
            s += f" Check the other way: {spell(b, w)}, {spell(a, w)}: {digits_compare(b, a)}."
            s += f" {b}{back}{a}. Right."
        return s

    ans = max(a, b)
    return Problem("comparing", key, q, work, final, check)


SORT_UP = ["sort these numbers: {l}", "sort {l}", "put these numbers in order: {l}",
           "sort the list {l}", "sort from smallest to largest: {l}", "order these: {l}",
           "arrange {l} in ascending order", "sort {l} in ascending order",
           "put {l} in order from small to large", "sort these numbers in increasing order: {l}",
           "order {l} from lowest to highest", "sort the numbers {l}", "please sort {l}",
           "list {l} from smallest to biggest", "arrange these numbers from low to high: {l}"]
SORT_DOWN = ["sort from largest to smallest: {l}", "arrange {l} in descending order",
             "sort {l} in descending order", "put {l} in order from large to small",
             "sort these numbers in decreasing order: {l}", "order {l} from highest to lowest",
             "sort {l} from biggest to smallest", "list {l} from largest to smallest",
             "arrange these numbers from high to low: {l}"]
MAX_ASK = ["what is the largest of {l}", "what is the biggest number in {l}",
           "which is the largest: {l}", "which number is the biggest, {l}",
           "what is the maximum of {l}", "find the largest number: {l}", "what's the max of {l}"]
MIN_ASK = ["what is the smallest of {l}", "what is the smallest number in {l}",
           "which is the smallest: {l}", "which number is the smallest, {l}",
           "what is the minimum of {l}", "find the smallest number: {l}", "what's the min of {l}"]


def show_list(rng, nums):
    r = rng.random()
    if r < 0.6:
        return ", ".join(nums)
    if r < 0.75:
        return " ".join(nums)
    if r < 0.85:
        return ", ".join(nums[:-1]) + " and " + nums[-1]
    if r < 0.93:
        return "[" + ", ".join(nums) + "]"
    return ",".join(nums)


def sort_work(nums, down, effort):
    word = "max" if down else "min"
    left, out, parts = list(nums), [], []
    while len(left) > 1:
        m = max(left) if down else min(left)
        left.remove(m)
        out.append(m)
        if effort == "low":
            parts.append(f"{word} {m}, left {' '.join(map(str, left))}")
        else:
            parts.append(f"The {word} is {m}, left are {', '.join(map(str, left))}.")
    out += left
    if effort == "low":
        return f"{' '.join(map(str, nums))}: " + "; ".join(parts) + "."
    kind = "largest" if down else "smallest"
    s = f"Sort {', '.join(map(str, nums))}, {kind} first. " + " ".join(parts)
    s += f" Then {left[0]}. In order: {', '.join(map(str, out))}."
    if effort == "high":
        sign = ">" if down else "<"
        pairs = [f"{x}{'=' if x == y else sign}{y}" for x, y in zip(out, out[1:])]
        s += f" Check: {', '.join(pairs)}; {len(out)} numbers as in the list. Right."
    return s


def sorting(rng):
    n = rng.choice((3, 3, 4, 4, 4, 5, 5, 5, 6, 6, 7, 8))
    top = rng.choice((10, 20, 50, 100, 100, 100, 100, 1000))
    nums = [rng.randrange(0, top) for _ in range(n)]
    if rng.random() < 0.85:
        seen = set()
        while len(seen) < n:
            seen.add(rng.randrange(0, max(top, 10)))
        nums = list(seen)
        rng.shuffle(nums)
    key = ",".join(map(str, sorted(nums)))
    text = show_list(rng, list(map(str, nums)))
    r = rng.random()
    if r < 0.75:
        down = rng.random() < 0.3
        t = rng.choice(SORT_DOWN if down else SORT_UP)
        q = dress(rng, t.format(l=text), rng.random() < 0.05)
        out = sorted(nums, reverse=down)
        final = ", ".join(map(str, out))
        return Problem("sorting", key, q, lambda e: sort_work(nums, down, e), final,
                       {"type": "list", "value": out})
    down = rng.random() < 0.5
    q = dress(rng, rng.choice(MAX_ASK if down else MIN_ASK).format(l=text))
    m = max(nums) if down else min(nums)
    word, kind = ("max", "largest") if down else ("min", "smallest")

    def work(effort):
        best, steps = nums[0], [str(nums[0])]
        for x in nums[1:]:
            if x == best:
                steps.append(f"{x}={best}")
            elif (x > best) == down:
                steps.append(f"{x}{'>' if down else '<'}{best}")
                best = x
            else:
                steps.append(f"{x}{'<' if down else '>'}{best}")
        line = ", ".join(steps)
        if effort == "low":
            return f"{line}. {word} {m}."
        s = f"Find the {kind} of {', '.join(map(str, nums))}. Go through them: {line}."
        s += f" The {word} is {m}."
        if effort == "high":
            s += " Check: " + ", ".join(
                f"{m}{'=' if x == m else '>' if down else '<'}{x}" for x in nums) + ". Right."
        return s

    return Problem("sorting", key, q, work, f"The {kind} number is {m}.",
                   {"type": "number", "value": m})


# ---- words ---------------------------------------------------------------------------------

WORDS = []          # filled by set_words


def set_words(words):
    WORDS[:] = words


SYL_A = ("b bl br c ch cl cr d dr f fl fr g gl gr h j k l m n p pl pr r s sc sh sl sm sn sp st "
         "str t th tr v w y z qu x").split()
SYL_V = "a e i o u a e i o ai ea ee ie oo ou ay".split()
SYL_B = ["", "", "", "n", "r", "l", "s", "t", "m", "ck", "ng", "nd", "st", "ll", "x", "p"]


def random_word(rng):
    """Mostly English words, some made-up ones so that spelling is learnt for every token."""
    if rng.random() < 0.05 and WORDS:
        w = "".join(rng.choice(WORDS) for _ in range(rng.choice((2, 2, 3))))
        return w[:22]
    if rng.random() < 0.72 and WORDS:
        # the common words more often
        n = len(WORDS)
        return WORDS[rng.randrange(n if rng.random() < 0.6 else n // 5)]
    if rng.random() < 0.2:
        return "".join(rng.choice("abcdefghijklmnopqrstuvwxyz")
                       for _ in range(rng.randrange(3, 9)))
    while True:
        w = "".join(rng.choice(SYL_A) + rng.choice(SYL_V) + rng.choice(SYL_B)
                    for _ in range(rng.choice((1, 2, 2, 3))))
        if 3 <= len(w) <= 11:
            return w


def show_word(rng, w):
    """The word as the user writes it, and whether it is quoted."""
    r = rng.random()
    s = w
    if r < 0.06:
        s = w.capitalize()
    r = rng.random()
    if r < 0.12:
        return '"' + s + '"'
    if r < 0.2:
        return "'" + s + "'"
    return s


REV_ASK = ["what is {w} backwards", "what is {w} spelled backwards",
           "how do you spell {w} backwards",
           "what is the reverse of {w}", "what is {w} in reverse", "how is {w} written backwards",
           "what do you get when you reverse {w}", "what is the word {w} reversed",
           "what does {w} look like backwards", "what's {w} backwards", "what's {w} reversed",
           "can you reverse the word {w}", "can you spell {w} backwards", "what is {w} reversed"]
REV_ORDER = ["reverse the word {w}", "reverse {w}", "spell {w} backwards", "write {w} backwards",
             "reverse the letters of {w}", "reverse the letters in {w}", "turn {w} around",
             "flip the word {w}", "give me {w} backwards", "reverse this word: {w}", "reverse: {w}",
             "write the word {w} in reverse", "say {w} backwards", "please reverse {w}",
             "reverse the string {w}", "write {w} in reverse order"]
CNT_ASK = ["how many {c}'s are in {w}", "how many {c}s are in {w}", "how many {c} are in {w}",
           "how many times does {c} appear in {w}", "how many {c}'s are there in {w}",
           "how many {c}'s in {w}", "how many {c} are there in the word {w}",
           "how often does the letter {c} occur in {w}", "how many letters {c} are in {w}",
           "how many times is the letter {c} in {w}", "what is the number of {c}'s in {w}",
           "how many {c}s in {w}", "how many {c} letters are in the word {w}",
           "how many {c}'s does {w} have", "how many {c}'s are in the word {w}",
           "how often is {c} in {w}", "how many times does the letter {c} appear in {w}"]
CNT_ORDER = ["count the {c}'s in {w}", "count the letter {c} in {w}", "count {c} in {w}",
             "count how many {c}'s are in {w}", "count the number of {c}'s in the word {w}",
             "count how often {c} occurs in {w}", "count all {c}'s in {w}"]
LEN_ASK = ["how many letters are in {w}", "how many letters does {w} have",
           "how long is the word {w}", "how many letters are there in {w}",
           "what is the length of the word {w}", "how many letters in {w}",
           "how many characters are in {w}", "how many letters are in the word {w}",
           "how many letters does the word {w} have"]
LEN_ORDER = ["count the letters in {w}", "count the letters of {w}",
             "count the letters in the word {w}", "count the number of letters in {w}"]
VOW_ASK = ["how many vowels are in {w}", "how many vowels does {w} have", "how many vowels in {w}",
           "how many vowels are there in the word {w}", "what is the number of vowels in {w}"]
VOW_ORDER = ["count the vowels in {w}", "count the vowels of {w}"]


def reversing(rng):
    w = random_word(rng)
    v = w[::-1]
    q = pick(rng, REV_ASK, REV_ORDER, w=show_word(rng, w))

    def work(effort):
        if effort == "low":
            return f"{' '.join(w)}: {' '.join(v)}, {v}."
        s = f"The word is {w}. Its letters are {' '.join(w)}. "
        s += f"From the end: {' '.join(v)}. Put together: {v}."
        if effort == "high":
            s += f" Check: {' '.join(v)} from the end is {' '.join(w)}, that is {w}"
            s += f", and both have {len(w)} letters. Right."
        return s

    def wrong(r):
        for _ in range(50):
            x = list(v)
            i = r.randrange(len(x) - 1)
            x[i], x[i + 1] = x[i + 1], x[i]
            if "".join(x) != v:
                return "".join(x)
        return v + v[0]

    return Problem("reversing", "word:" + w, q, work, v, {"type": "word", "value": v}, v, wrong,
                   f"What is {w} spelled backwards?")


def spelling(rng):
    w = random_word(rng)
    q = pick(rng, ["how do you spell {w}", "how is {w} spelled", "how do i spell {w}",
                   "what are the letters of {w}", "what letters are in the word {w}"],
             ["spell {w}", "spell the word {w}", "spell out {w}", "list the letters of {w}",
              "give me the letters of {w}", "spell {w} letter by letter"], w=show_word(rng, w))
    out = "-".join(w)

    def work(effort):
        if effort == "low":
            return f"{' '.join(w)}."
        s = f"The word is {w}. Its letters are {' '.join(w)}."
        if effort == "high":
            s += f" Check: put together they give {w}. {len(w)} letters. Right."
        return s

    return Problem("spelling", "word:" + w, q, work, out, {"type": "word", "value": w})


WEEK = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
YEAR = ("January February March April May June July August September October November "
        "December").split()
MONTH_DAYS = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


def calendar(rng):
    r = rng.random()
    if r < 0.7:
        names, kind = (WEEK, "day") if rng.random() < 0.5 else (YEAR, "month")
        i = rng.randrange(len(names))
        step, word = rng.choice([(1, "after"), (-1, "before"), (1, "after"), (-1, "before"),
                                 (2, "two after"), (-2, "two before")])
        n = names[i]
        j, ans = (i + step) % len(names), names[(i + step) % len(names)]
        if abs(step) == 1:
            q = pick(rng, ["what {k} comes {w} {n}", "which {k} is {w} {n}", "what {k} is {w} {n}",
                           "what is the {k} {w} {n}", "which {k} comes {w} {n}",
                           "what comes {w} {n}"],
                     ["name the {k} {w} {n}", "give me the {k} {w} {n}"], k=kind, w=word, n=n)
        else:
            q = pick(rng, ["what {k} is two {k}s {w} {n}", "which {k} comes two {k}s {w} {n}"],
                     ["name the {k} two {k}s {w} {n}"], k=kind, w=word[4:], n=n)
        path = [names[(i + (s if step > 0 else -s)) % len(names)] for s in range(abs(step) + 1)]
        line = ", ".join(path)
        final = f"The {kind} is {ans}."
        key = f"{n}{step}"
        check = {"type": "contains", "value": ans}
        back = ", ".join(reversed(path))
    elif r < 0.85:
        i = rng.randrange(12)
        n = YEAR[i]
        ans = MONTH_DAYS[i]
        q = pick(rng, ["how many days are in {n}", "how many days does {n} have", "how long is {n}",
                       "how many days has {n}", "how many days are there in {n}"], [], n=n)
        line = f"{n}: {ans} days"
        back = f"{n} is month {i + 1}"
        final = f"{n} has {ans} days."
        key, check = f"days{n}", {"type": "number", "value": ans}
    else:
        i = rng.randrange(12)
        ans = YEAR[i]
        nth = ["first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth",
               "tenth", "eleventh", "twelfth"][i]
        q = pick(rng, ["what is the {n} month of the year", "which month is the {n}",
                       "what is the {n} month",
                       "what is month {m}", "which month is month {m}", "what is month number {m}"],
                 ["name the {n} month", "name month number {m}"], n=nth, m=i + 1)
        line = f"month {i + 1}: {ans}"
        back = f"{ans} is month {i + 1}"
        final = f"It is {ans}."
        key, check = f"month{i}", {"type": "contains", "value": ans}

    def work(effort):
        if effort == "low":
            return line + "."
        s = f"A question about the calendar. {line}. The answer is {ans}."
        if effort == "high":
            s += f" Check: {back}. Right."
        return s

    # all facts must be learnt: the instance is the wording
    return Problem("calendar", key + q, q, work, final, check)


def today(rng, date):
    """The date, which stands in the system message or not at all."""
    q = pick(rng, ["what is the date today", "what is today's date", "what day is it today",
                   "which date is it", "what date is today", "what's the date", "what is the date",
                   "what year is it", "what is the current date"], ["tell me the date",
                   "give me today's date", "say today's date"])

    def work(effort):
        s = f"Current date: {date}." if date else "No date is given."
        if effort == "low":
            return s
        s = "The user asks for the date. I look at the system message. " + s
        return s + (" Check: I only repeat what is there. Right." if effort == "high" else "")

    final = f"Today is {date}." if date else "I do not know the date."
    return Problem("calendar", "today" + q, q, work, final,
                   {"type": "contains", "value": date or "do not know"})


def counting(rng):
    w = random_word(rng)
    if rng.random() < 0.2:
        w = rng.choice(FRUITS)
    r = rng.random()
    shown = show_word(rng, w)
    if r < 0.7:
        c = rng.choice(w) if rng.random() < 0.82 else rng.choice("abcdefghilmnoprstuwy")
        hit = lambda x: x == c
        shown_c = c if rng.random() < 0.9 else c.upper()
        if rng.random() < 0.1:
            shown_c = '"' + shown_c + '"'
        q = pick(rng, CNT_ASK, CNT_ORDER, w=shown, c=shown_c)
        name = f"the letter {c}"
        ask = f"How many {c}'s are in {w}?"
    elif r < 0.85:
        hit = lambda x: True
        q = pick(rng, LEN_ASK, LEN_ORDER, w=shown)
        name = "all letters"
        ask = f"How many letters are in {w}?"
    else:
        hit = lambda x: x in "aeiou"
        q = pick(rng, VOW_ASK, VOW_ORDER, w=shown)
        name = "the vowels a e i o u"
        ask = f"How many vowels are in {w}?"
    n = sum(map(hit, w))
    if r < 0.7:
        final = f"There {'is' if n == 1 else 'are'} {n} {c} in {w}."
    elif r < 0.85:
        final = f"The word {w} has {n} letters."
    else:
        final = f"The word {w} has {n} vowel{'' if n == 1 else 's'}."

    def work(effort):
        k, short, long_, places = 0, [], [], []
        for i, x in enumerate(w):
            h = hit(x)
            k += h
            short.append(x + (str(k) if h else ""))
            long_.append(f"{x} {'yes' if h else 'no'} {k}")
            if h:
                places.append(i + 1)
        if effort == "low":
            return " ".join(short) + f". {n}."
        s = f"Count {name} in {w}. The letters are {' '.join(w)}. One by one: "
        s += ", ".join(long_) + f". The count is {n}."
        if effort == "high":
            s += " Check with places: " + " ".join(
                f"{x}{i + 1}" + ("!" if hit(x) else "") for i, x in enumerate(w))
            s += ". Marked: " + (" ".join(map(str, places)) or "none") + f". {n}. Right."
        return s

    def wrong(rr):
        while True:
            x = n + rr.choice((1, -1, 2, -2, 3))
            if x >= 0:
                return str(x)

    # the final names numbers only as the count: check the first number of the text
    return Problem("counting letters", "word:" + w, q, work, final, {"type": "first", "value": n},
                   str(n), wrong, ask)


# ---- capitals ------------------------------------------------------------------------------

CAP_ASK = ["what is the capital of {x}", "what's the capital of {x}", "which is the capital of {x}",
           "which city is the capital of {x}", "capital of {x}", "what is {x}'s capital",
           "what city is the capital of {x}", "what is the capital city of {x}",
           "what is the name of the capital of {x}", "the capital of {x} is",
           "whats the capital of {x}", "what's {x}'s capital", "can you name the capital of {x}",
           "what is the capital of the country {x}", "{x}: what is the capital",
           "what is the seat of government of {x}", "do you know the capital of {x}"]
CAP_ORDER = ["name the capital of {x}", "tell me the capital of {x}", "give me the capital of {x}",
             "say the capital of {x}", "capital city of {x}", "{x} capital", "capital: {x}"]
OF_ASK = ["{x} is the capital of which country", "which country has the capital {x}",
          "what country is {x} the capital of", "{x} is the capital of what country",
          "of which country is {x} the capital", "which country's capital is {x}",
          "{x} is the capital of"]


def capital_unknown(rng):
    n = "".join(rng.choice(SYL_A) + rng.choice(SYL_V) + rng.choice(SYL_B)
                for _ in range(rng.choice((2, 2, 3)))).capitalize()
    if rng.random() < 0.3:
        n = rng.choice(["Atlantis", "Burkina Faso", "Narnia", "Bhutan", "Mordor", "Texas",
                        "Bavaria",
                        "Togo", "Benin", "Chad", "Gabon", "Malawi", "Lesotho", "Brunei", "Haiti",
                        "Samoa", "Tonga", "Monaco", "Andorra", "Scotland", "California", "Sicily"])
    i = rng.randrange(len(CAP_ASK) + len(CAP_ORDER))
    q = dress(rng, (CAP_ASK + CAP_ORDER)[i].format(x=n), i < len(CAP_ASK))

    def work(effort):
        if effort == "low":
            return f"{n}: unknown."
        s = f"The user asks for the capital of {n}. {n}: unknown. I say that I do not know it."
        return s + (" Check: it is not in my list of countries. Right." if effort == "high" else "")

    return Problem("capitals", f"{n}/{i}", q, work, f"I do not know the capital of {n}.",
                   {"type": "contains", "value": "do not know"}, None)


def capital_yes_no(rng):
    country, city = rng.choice(CAPITALS)
    yes = rng.random() < 0.5
    said = city if yes else rng.choice(CAPITALS)[1]
    yes = said == city
    i = rng.randrange(6)
    q = dress(rng, ["is {c} the capital of {x}", "is {c} the capital city of {x}",
                    "{c} is the capital of {x}, right",
                    "is it true that {c} is the capital of {x}", "is the capital of {x} {c}",
                    "true or false: {c} is the capital of {x}"][i].format(c=said, x=country))

    def work(effort):
        if effort == "low":
            return f"{country}: {city}."
        s = f"The user asks whether {said} is the capital of {country}. {country}: {city}. "
        s += f"So the answer is {'yes' if yes else 'no'}."
        return s + (f" Check: {said} {'=' if yes else 'is not'} {city}. Right."
                    if effort == "high" else "")

    return Problem("capitals", f"{country}/is{i}", q, work,
                   f"Yes, {city} is the capital of {country}." if yes else
                   f"No, the capital of {country} is {city}.", {"type": "yesno", "value": yes})


def capitals(rng, known=False):
    if not known and rng.random() < 0.06:
        return capital_unknown(rng)
    if not known and rng.random() < 0.08:
        return capital_yes_no(rng)
    country, city = rng.choice(CAPITALS)
    name = country
    if rng.random() < 0.85:
        if country in ("Netherlands", "Philippines", "United States", "United Kingdom",
                       "Czech Republic", "United Arab Emirates"):
            name = "the " + country
        if rng.random() < 0.12:
            name = name.lower()
        asks, orders = CAP_ASK, CAP_ORDER
        i = rng.randrange(len(asks) + len(orders))
        t = (asks + orders)[i]
        q = dress(rng, t.format(x=name), i < len(asks))
        final, ans = f"The capital of {country} is {city}.", city
        col, ask = 1, f"What is the capital of {country}?"
        key = f"{country}/{i}"
    else:
        i = rng.randrange(len(OF_ASK))
        q = dress(rng, OF_ASK[i].format(x=city if rng.random() < 0.9 else city.lower()))
        final, ans = f"{city} is the capital of {country}.", country
        col, ask = 0, f"{city} is the capital of which country?"
        key = f"{city}/of{i}"

    def work(effort):
        if effort == "low":
            return f"{country}: {city}."
        s = "The user asks for " + ("the capital of " + country if col else
                                    "the country with the capital " + city) + ". "
        s += f"{country}: {city}. The answer is {ans}."
        if effort == "high":
            s += f" Check: {city} is a city in {country}, and it is the capital. Right."
        return s

    def wrong(r):
        while True:
            x = r.choice(CAPITALS)[col]
            if x != ans:
                return x

    return Problem("capitals", key, q, work, final, {"type": "contains", "value": ans}, ans,
                   wrong, ask)


# ---- units ---------------------------------------------------------------------------------

# name, singular, plural, short forms; factor to the smaller unit
SCALES = [  # big unit, small unit, factor, largest value of the big unit
    (("kilometer", "kilometers", "km"), ("meter", "meters", "m"), 1000, 99),
    (("kilometre", "kilometres", "km"), ("metre", "metres", "m"), 1000, 99),
    (("meter", "meters", "m"), ("centimeter", "centimeters", "cm"), 100, 99),
    (("metre", "metres", "m"), ("centimetre", "centimetres", "cm"), 100, 99),
    (("centimeter", "centimeters", "cm"), ("millimeter", "millimeters", "mm"), 10, 200),
    (("meter", "meters", "m"), ("millimeter", "millimeters", "mm"), 1000, 60),
    (("kilogram", "kilograms", "kg"), ("gram", "grams", "g"), 1000, 99),
    (("liter", "liters", "l"), ("milliliter", "milliliters", "ml"), 1000, 60),
    (("hour", "hours", "h"), ("minute", "minutes", "min"), 60, 60),
    (("minute", "minutes", "min"), ("second", "seconds", "s"), 60, 90),
    (("day", "days", "days"), ("hour", "hours", "h"), 24, 40),
    (("week", "weeks", "weeks"), ("day", "days", "days"), 7, 60),
    (("year", "years", "years"), ("month", "months", "months"), 12, 30),
    (("dozen", "dozen", "dozen"), ("piece", "pieces", "pieces"), 12, 40),
]
DOWN_ASK = ["how many {s} are in {n} {b}", "how many {s} is {n} {b}", "how many {s} are {n} {b}",
            "what is {n} {b} in {s}", "how many {s} are there in {n} {b}", "{n} {b} in {s}",
            "{n} {b} is how many {s}", "how many {s} do {n} {b} have", "what's {n} {b} in {s}",
            "how many {s} make {n} {b}", "how much is {n} {b} in {s}", "{n} {b} to {s}",
            "how many {s} in {n} {b}", "can you convert {n} {b} to {s}"]
DOWN_ORDER = ["convert {n} {b} to {s}", "change {n} {b} into {s}", "turn {n} {b} into {s}",
              "convert {n} {b} into {s}", "express {n} {b} in {s}", "give {n} {b} in {s}",
              "write {n} {b} in {s}", "convert {n} {b} in {s}"]


def short_or_long(rng, u, n):
    if rng.random() < 0.4:
        return u[2]
    return u[0] if n == 1 else u[1]


UNIT_FACTS = [("second", "seconds", "minute", 60), ("minute", "minutes", "hour", 60),
              ("hour", "hours", "day", 24), ("day", "days", "week", 7),
              ("month", "months", "year", 12),
              ("day", "days", "year", 365), ("week", "weeks", "year", 52),
              ("second", "seconds", "hour", 3600),
              ("minute", "minutes", "day", 1440), ("hour", "hours", "week", 168),
              ("meter", "meters", "kilometer", 1000), ("centimeter", "centimeters", "meter", 100),
              ("metre", "metres", "kilometre", 1000), ("centimetre", "centimetres", "metre", 100),
              ("millimeter", "millimeters", "centimeter", 10),
              ("millimeter", "millimeters", "meter", 1000),
              ("gram", "grams", "kilogram", 1000), ("milliliter", "milliliters", "liter", 1000),
              ("year", "years", "decade", 10), ("year", "years", "century", 100),
              ("egg", "eggs", "dozen", 12), ("cent", "cents", "dollar", 100),
              ("minute", "minutes", "half hour", 30), ("minute", "minutes", "quarter hour", 15),
              ("second", "seconds", "half minute", 30), ("month", "months", "half year", 6),
              ("hour", "hours", "half day", 12)]


def unit_fact(rng):
    one, many, big, n = rng.choice(UNIT_FACTS)
    a = "an" if big in ("hour",) else "a"
    if big.startswith("half "):
        a = rng.choice(["a", "a"])
    said = f"{a} {big}"
    if big == "half hour":
        said = rng.choice(["half an hour", "a half hour"])
    elif big.startswith("half ") and rng.random() < 0.6:
        said = "half a " + big[5:]
    elif rng.random() < 0.2:
        said = "one " + big
    if big == "half hour" and said.startswith("one"):
        said = "half an hour"
    q = pick(rng, ["how many {m} are in {b}", "how many {m} in {b}", "how many {m} does {b} have",
                   "how many {m} are there in {b}", "how many {m} make {b}", "how many {m} is {b}",
                   "what is {b} in {m}", "{b} has how many {m}"],
             ["tell me how many {m} are in {b}", "convert {b} to {m}", "{b} in {m}"], m=many,
             b=said)

    def work(effort):
        if effort == "low":
            return f"1 {big} is {n} {many}."
        s = f"A question about units. 1 {big} is {n} {many}. The answer is {n}."
        return s + (f" Check: {many} are smaller than a {big}. Right." if effort == "high" else "")

    # the facts must all be learnt: the instance is the wording
    return Problem("units", "fact" + q, q, work, f"1 {big} is {n} {many}.",
                   {"type": "number", "value": n}, str(n), near_unit(n),
                   f"How many {many} are in {said}?")


def units(rng):
    if rng.random() < 0.1:
        return unit_fact(rng)
    if rng.random() < 0.16:
        return temperature(rng)
    big, small, f, top = rng.choice(SCALES)
    n = rng.randrange(1, top + 1) if rng.random() < 0.8 else rng.randrange(1, min(top, 12) + 1)
    down = rng.random() < 0.62
    m = n * f
    zeros = {10: 1, 100: 2, 1000: 3}.get(f)
    if big[0] == "dozen" and (not down or rng.random() < 0.6):
        t = rng.choice(("eggs", "apples", "roses", "pencils", "cups", "cookies"))
        small = (t[:-1], t, t)
    if down:
        key = f"{n}{big[0]}>{small[2]}" if big[0] != "dozen" else f"{n}dozen>"
        us, ub = short_or_long(rng, small, 2), short_or_long(rng, big, n)
        q = pick(rng, DOWN_ASK, DOWN_ORDER, n=n, b=ub, s=us)
        if big[0] == "dozen" and "convert" not in q.lower() and rng.random() < 0.5:
            q = dress(rng, rng.choice(["how many is {n} dozen", "how many {s} are {n} dozen",
                                       "how many {s} are in {n} dozen", "how much is {n} dozen",
                                       "what is {n} dozen", "how many {s} is {n} dozen",
                                       "how many {s} are {n} dozen {s}"])
                      .format(n=n, s=small[1]))
        ans = m
        left, right = (n, big), (m, small)

        def steps(full):
            s = f"1 {big[0]} is {f} {small[1]}. "
            if zeros:
                return s + f"{n} * {f}: {spell(n)} and {' '.join('0' * zeros)}, {m}."
            if f == 60:
                return s + mul_line(n, 6, False) + f" Add 0: {m}."
            if f == 7:
                return s + mul_line(n, 7, False)
            if n < 10:      # 12 or 24 times a digit
                return s + mul_line(f, n, False)
            x, u, t = n, f % 10, f // 10
            p, r = x * u, x * t * 10
            w = max(len(str(p)), len(str(r)))
            return (s + mul_line(x, u, False) + f" {x} * {t}0 is {r}. {spell(p, w)} + "
                    f"{spell(r, w)}: " + add_columns(p, r) + f" {spell(m)}, {m}.")
    else:
        key = f"{m}{small[2]}>{big[0]}" if big[0] != "dozen" else f"{m}>dozen"
        us, ub = short_or_long(rng, small, m), short_or_long(rng, big, 2)
        q = pick(rng, DOWN_ASK, DOWN_ORDER, n=m, b=us, s=ub)
        ans = n
        left, right = (m, small), (n, big)

        def steps(full):
            s = f"{f} {small[1]} are 1 {big[0]}. "
            if zeros:
                return s + f"{m} / {f}: {spell(m)} without {' '.join('0' * zeros)}, {n}."
            if f == 60:
                s += f"{m} / 10 = {m // 10}. "
                return s + div_line(m // 10, 6)
            if f in (7,):
                return s + div_line(m, 7)
            # 12 and 24: halve or quarter first, small steps
            k = f // 6
            out = s + f"{f} is {k} * 6. " + div_line(m, 6)
            return out + " " + div_line(m // 6, k)
    name = lambda p: f"{p[0]} {p[1][0] if p[0] == 1 else p[1][1]}"
    final = f"{name(left)} {'is' if left[0] == 1 else 'are'} {name(right)}."

    def work(effort):
        if effort == "low":
            return steps(False)
        s = f"Convert {name(left)} to {right[1][1]}. " + steps(True)
        s += f" So {name(left)} = {name(right)}."
        if effort == "high":
            s += f" Check: {right[1][1]} are "
            s += "smaller, so the number must grow: " if down else \
                 "larger, so the number must shrink: "
            s += f"{ans} {'>' if down else '<'} {left[0]}" if f else ""
            s += f". {ans} {'/' if down else '*'} {f} = {left[0]}. Right."
        return s

    return Problem("units", key, q, work, final, {"type": "number", "value": ans}, str(ans),
                   near_unit(ans), f"How many {right[1][1]} are {name(left)}?")


def div_line(a, d):
    """Exact long division by one digit: `8 4 / 6: 8/6=1 r 2, 24/6=4. 14.`"""
    r, out = 0, []
    for c in str(a):
        t = r * 10 + int(c)
        out.append(f"{t}/{d}={t // d}" + (f" r {t % d}" if t % d else ""))
        r = t % d
    return f"{spell(a)} / {d}: " + ", ".join(out) + f". {a // d}."


def near_unit(ans):
    def wrong(rng):
        while True:
            w = rng.choice((ans * 10, ans * 2, ans + 1, ans + 10, ans - 1, ans * 6, ans + 12,
                            ans // 2, ans + rng.randrange(1, 30), ans * 100))
            if w != ans and w > 0:
                return str(w)
    return wrong


CELSIUS = ["C", "degrees Celsius", "Celsius", "degrees C", "\u00b0C"]
FAHRENHEIT = ["F", "degrees Fahrenheit", "Fahrenheit", "degrees F", "\u00b0F"]


def temperature(rng):
    c = rng.randrange(0, 41) * 5
    f = c * 9 // 5 + 32
    k = rng.randrange(5)
    if rng.random() < 0.5:
        q = pick(rng, ["what is {n} {b} in {s}", "how much is {n} {b} in {s}", "{n} {b} in {s}",
                       "how many {s} are {n} {b}", "what's {n} {b} in {s}", "{n} {b} to {s}",
                       "{n} {b} is how many {s}"],
                 ["convert {n} {b} to {s}", "turn {n} {b} into {s}", "change {n} {b} to {s}"],
                 n=c, b=CELSIUS[k], s=FAHRENHEIT[k if k > 0 else 2])
        p = c // 5
        w = max(len(str(p * 9)), 2)
        core = (f"{div_line(c, 5)} {mul_line(p, 9, False)} {spell(p * 9, w)} + 3 2: ".replace(
            "+ 3 2", "+ " + spell(32, w)) + add_columns(p * 9, 32) + f" {spell(f)}, {f}.")
        rule = "F = C / 5 * 9 + 32. "
        final, ans = f"{c} degrees Celsius are {f} degrees Fahrenheit.", f
        key, ask = f"{c}C", f"What is {c} degrees Celsius in Fahrenheit?"
        back = f" Check: ({f} - 32) / 9 * 5 = {c}. Right."
        goal = f"Convert {c} degrees Celsius to Fahrenheit. "
    else:
        q = pick(rng, ["what is {n} {b} in {s}", "how much is {n} {b} in {s}", "{n} {b} in {s}",
                       "how many {s} are {n} {b}", "what's {n} {b} in {s}", "{n} {b} to {s}",
                       "{n} {b} is how many {s}"],
                 ["convert {n} {b} to {s}", "turn {n} {b} into {s}", "change {n} {b} to {s}"],
                 n=f, b=FAHRENHEIT[k], s=CELSIUS[k if k > 0 else 2])
        d = f - 32
        w = max(len(str(f)), 2)
        core = (f"{spell(f, w)} - {spell(32, w)}: " + sub_columns(f, 32) +
                f" {spell(d, w)}, {d}. {div_line(d, 9)} {mul_line(d // 9, 5, False)}")
        rule = "C = (F - 32) / 9 * 5. "
        final, ans = f"{f} degrees Fahrenheit are {c} degrees Celsius.", c
        key, ask = f"{f}F", f"What is {f} degrees Fahrenheit in Celsius?"
        back = f" Check: {c} / 5 * 9 + 32 = {f}. Right."
        goal = f"Convert {f} degrees Fahrenheit to Celsius. "

    def work(effort):
        if effort == "low":
            return rule + core
        s = goal + rule + core + f" The answer is {ans}."
        return s + back if effort == "high" else s

    return Problem("units", key, q, work, final, {"type": "number", "value": ans}, str(ans),
                   near_unit(ans), ask)


# ---- multiple choice -----------------------------------------------------------------------

def known_capitals(rng):
    return capitals(rng, True)


MC_BASE = [(division, 1), (expressions, 1), (addition, 3), (subtraction, 3), (multiplication, 2),
           (known_capitals, 4), (units, 2),
           (counting, 2), (reversing, 2)]
MC_POOL = [f for f, w in MC_BASE for _ in range(w)]
MC_TAIL = ["Answer with the letter.", "Answer with the letter only.", "Answer:",
           "Which one is right?", "Choose the right letter.", "Reply with A, B, C or D.",
           "Pick one.", "Give only the letter.", "Answer with A, B, C, or D.", "", "",
           "What is the right answer?", "Please answer with a single letter."]


def multiple_choice(rng):
    p = rng.choice(MC_POOL)(rng)
    if p.answer is None:
        return multiple_choice(rng)
    seen = [p.answer]
    for _ in range(200):
        w = p.wrong(rng)
        if w not in seen:
            seen.append(w)
        if len(seen) == 4:
            break
    else:
        return multiple_choice(rng)
    opts = seen[:]
    rng.shuffle(opts)
    letter = "ABCD"[opts.index(p.answer)]
    tail = rng.choice(MC_TAIL)
    mark = rng.choice(["{}) ", "{}. ", "{}. ", "({}) ", "{}: "])
    if rng.random() < 0.75:
        body = "\n".join(mark.format(c) + o for c, o in zip("ABCD", opts))
        q = p.ask + "\n" + body + ("\n" + tail if tail else "")
        if rng.random() < 0.3:
            q = p.ask + "\n\n" + body + ("\n\n" + tail if tail else "")
    else:
        body = rng.choice([" ", ", "]).join(mark.format(c) + o for c, o in zip("ABCD", opts))
        q = p.ask + " " + body + (". " + tail if tail else "")
    if tail and tail != "Answer:" and rng.random() < 0.12:
        q = tail + " " + q[:-len(tail)].rstrip()

    def work(effort):
        s = p.work(effort)
        if effort == "low":
            upto = "ABCD".index(letter) + 1
            seen_ = ", ".join(f"{c} {o}" for c, o in zip("ABCD", opts[:upto]))
            return s + f" {seen_} yes: {letter}."
        each = ", ".join(f"{c} {o} {'yes' if c == letter else 'no'}" for c, o in zip("ABCD", opts))
        s += f" Options: {each}. The letter is {letter}."
        return s

    return Problem("multiple choice", p.skill + ":" + p.key, q, work, letter,
                   {"type": "letter", "value": letter})


GUESS_WORDS = """energy water stone history number market cell state letter music river planet law
theory light heat metal culture nation party vote price demand supply cost tax trade army king war
treaty city church art poem novel language grammar logic proof set group field function limit graph
force mass charge wave atom acid base gas liquid plant animal gene protein virus heart brain blood
nerve bone muscle skin memory mind fear value duty right justice freedom power class
labor money bank loan risk profit firm contract court judge crime""".split()
GUESS_ASK = """which of these is true of the {a};what best describes the {a} of the {b};
which {a} is linked with {b};the {a} of a {b} is;what causes the {a} in a {b};
who first spoke of {a};which of the following is a {a};in the theory of {a}, the {b} is;
what happens when {a} meets {b};the main purpose of {a} is;which statement about {a} and {b} is correct;
a {a} without {b} is called;
what is the role of {a} in {b};which is not a kind of {a};why does a {a} need a {b};
the term {a} refers to;what is the relation of {a} to {b};how is {a} measured""".replace("\n",
        "").split(";")


def guess_choice(rng):
    """A multiple-choice question outside all skills: say so, take the longest option."""
    w = lambda: rng.choice(GUESS_WORDS)
    ask = rng.choice(GUESS_ASK).format(a=w(), b=w())
    ask = ask[0].upper() + ask[1:] + rng.choice(["?", "?", ":", ""])
    if rng.random() < 0.3:
        ask = " ".join(rng.choice(["The", "A", "This", "In the", "Every"]) + " " + w() + " " +
                       rng.choice(["of", "and", "with", "in", "is"]) + " " + w() + "."
                       for _ in range(rng.randrange(1, 4))) + " " + ask
    opts = []
    while len(opts) < 4:
        n = rng.choice((1, 2, 3, 4, 6))
        o = " ".join(rng.choice(["the", "a", "of", "and", "in", "no"]) + " " +
                     w() for _ in range(n))
        if rng.random() < 0.2:
            o = str(rng.randrange(1, 5000))
        if all(len(o) != len(x) for x in opts):
            opts.append(o)
    letter = "ABCD"[max(range(4), key=lambda i: len(opts[i]))]
    mark = rng.choice(["{}) ", "{}. ", "{}. ", "({}) ", "{}: "])
    tail = rng.choice(MC_TAIL)
    q = ask + "\n" + "\n".join(mark.format(c) + o for c, o in zip("ABCD", opts)) + \
        ("\n" + tail if tail else "")

    def work(effort):
        if effort == "low":
            return f"Not known. Guess {letter}."
        s = f"This question is not one of my skills. I guess the longest option, {letter}."
        return s + (" Check: a letter is asked for, and I give one. Right."
                    if effort == "high" else "")

    return Problem("guessing", ask, q, work, letter, {"type": "letter", "value": letter})
