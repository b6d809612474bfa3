"""Tools: families of declarations in many wordings, questions that need them, results.

A family gives the declaration (names, parameters and descriptions vary), a question with its
arguments, and results with the answer that reads them out.
"""
import json
import re

from facts import CITIES, PEOPLE

DAYS = "today;tomorrow;on Monday;on Friday;this weekend;right now;tonight".split(";")
LANGS = ("French;German;Spanish;Italian;Japanese;Chinese;Russian;Arabic;Dutch;Swedish;Polish;"
         "Greek").split(";")
MONEY = "USD;EUR;GBP;JPY;CHF;CAD;AUD;SEK;NOK;INR;CNY;BRL;MXN;PLN".split(";")
SKIES = ("cloudy;sunny;rain;light rain;snow;clear;fog;windy;storm;overcast;partly cloudy;"
         "hail").split(";")
TOPIC = """solar power;cheap flights;football results;new phones;bread recipes;electric cars;
jazz music;the moon landing;black holes;garden tools;healthy food;running shoes;chess openings;
stock prices;rust programming;cuda kernels;mixture of experts;open weights models;cat food;
winter tires;train tickets;tax rules;used books;coffee machines;climate reports""".replace("\n",
        "").split(";")
SONGS = """Yellow River;Blue Moon;Silent Night;Morning Sun;Golden Days;Little Star;Summer Rain;
Night Train;Old Friends;Paper Boats;Green Fields;Stone Bridge;Red Lantern;Slow Dance""" \
    .replace("\n", "").split(";")
TASKS = """buy milk;call mom;water the plants;pay the rent;feed the cat;send the report;
take out the trash;book the dentist;clean the car;walk the dog;read the paper;check the oven""" \
    .replace("\n", "").split(";")
PHRASES = """good morning;thank you;where is the station;I am hungry;see you soon;how much is it;
the cat sleeps;good night;I love music;the train is late;open the door;nice weather""" \
    .replace("\n", "").split(";")
ROOMS = "kitchen;bedroom;bathroom;living room;office;hall;garage;garden;cellar;attic".split(";")
FOOD = "pizza;sushi;tacos;noodles;curry;burgers;salad;pasta;ramen;kebab;soup;steak".split(";")
NOUNS = """invoice;order;ticket;customer;user;product;book;shipment;account;booking;flight;patient;
student;contract;device;server;payment;recipe;job;message;file;report;case;item;parcel;claim;loan;
course;event;room""".replace("\n", "").split(";")
STATES = "open;closed;pending;paid;shipped;lost;ready;active;late;done;new;cancelled".split(";")
WORDS = ("serene;lucid;candid;brisk;amber;fable;hollow;novel;meadow;ponder;gloss;harbor;quaint;"
         "vivid").split(";")
SYL = ("ba be bo ca da de do fa ga ka la le li lo ma me mi na no pa ra re ri ro sa se ta te ti to "
       "va vi za ol ar en is").split()


def city(rng):
    """A real city, or a made-up name so that copying is learnt."""
    if rng.random() < 0.62:
        return rng.choice(CITIES)
    return "".join(rng.choice(SYL) for _ in range(rng.choice((2, 2, 3, 3)))).capitalize()


def one(x):
    """Pick helper for (variants) given as `a|b|c`."""
    return lambda rng: rng.choice(x.split("|"))


class Case:
    """One use of a tool: declaration, question, arguments, results."""

    def __init__(self, family, name, desc, props, required, question, args, results, key):
        self.family, self.name, self.desc = family, name, desc
        self.props, self.required = props, required
        self.question, self.args, self.results, self.key = question, args, results, key

    def extra(self, rng):
        """At times an optional parameter that this use does not need."""
        if rng.random() < 0.12 and self.props:
            k, t = rng.choice([("verbose", "boolean"), ("lang", "string"), ("limit", "integer"),
                               ("user", "string"), ("debug", "boolean"), ("format", "string"),
                               ("tags", "array"), ("detail", "boolean"), ("source", "string")])
            if k not in self.props:
                self.props[k] = prop(rng, t, "Optional|Not needed|Extra setting")
                if t == "array":
                    self.props[k]["items"] = {"type": "string"}
                if t == "boolean" and rng.random() < 0.5:
                    self.props[k]["default"] = False
        return self

    def decl(self):
        f = {"name": self.name, "description": self.desc,
             "parameters": {"type": "object", "properties": self.props, "required": self.required}}
        if getattr(self, "null", False):
            del f["parameters"]
        return {"type": "function", "function": f}


def prop(rng, t, descs, **kw):
    p = {"type": t}
    if rng.random() < 0.6:
        p["description"] = rng.choice(descs.split("|"))
    p.update(kw)
    return p


def camel(rng, name):
    """At times camelCase instead of snake_case."""
    if rng.random() < 0.12:
        a = name.split("_")
        return a[0] + "".join(x.capitalize() for x in a[1:])
    return name


def polite(rng, q):
    """Case and punctuation of a question template (its arguments keep their case)."""
    if rng.random() < 0.12:
        q = rng.choice(["Please ", "Can you ", "Hey, ", "Could you ", "I want to know: "]) + q
    elif rng.random() < 0.75:
        q = q[0].upper() + q[1:]
    first = q.split()[0].lower()
    ask = first in ("what", "how", "is", "which", "where", "who", "what's", "do", "will", "are",
                    "can", "could", "when")
    r = rng.random()
    return q + (("?" if ask else ".") if r < 0.75 else "" if r < 0.93 else "!" if not ask else "")


def shape(rng, pairs):
    """A tool's result as JSON, with varying spacing."""
    r = rng.random()
    d = dict(pairs)
    return json.dumps(d) if r < 0.5 else json.dumps(d, separators=(",", ":"))


def f_weather(rng):
    c = city(rng)
    k = one("city|location|city|place|town|city_name|q")(rng)
    props = {k: prop(rng, "string", "The city.|Name of the city|City name, for example Oslo|Where|"
                                    "The place|The city and state, e.g. San Francisco, CA|"
                                     "City name")}
    args = {k: c}
    q = one("what is the weather in {c}|what's the weather like in {c}|how is the weather in {c}|"
            "weather in {c}|is it raining in {c}|how warm is it in {c}|tell me the weather in {c}|"
            "what is the temperature in {c}|will it rain in {c}|do I need a coat in {c}|"
            "get the weather for {c}|is it cold in {c}|what's the weather in {c} {d}|"
            "how cold is it in {c}|give me the weather for {c}|check the weather in {c}|"
            "what is the weather in {c} {d}|show me the weather in {c}|{c} weather")(rng)
    q = q.format(c=c, d=rng.choice(DAYS))
    if rng.random() < 0.3:
        u = rng.choice(["celsius", "fahrenheit"])
        props["unit"] = prop(rng, "string", "Unit|Temperature unit", enum=["celsius", "fahrenheit"])
        if rng.random() < 0.5:
            props["unit"]["default"] = "celsius"
        if rng.random() < 0.5:
            q += " in " + u
            args["unit"] = u
    name = camel(rng, one("get_weather|get_weather|weather|get_current_weather|fetch_weather|"
                          "current_weather|weather_lookup|check_weather")(rng))
    desc = one("Get the weather of a city.|Current weather for a place|Returns the weather in a "
               "city|"
               "Get the current weather|Gets the weather at a location.|Weather report|"
               "Get the current weather in a given location|Get current weather for a city")(rng)

    def results(r):
        t, s = r.randrange(-20, 45), r.choice(SKIES)
        kt = one("temp_c|temperature|temp|temp_c|degrees")(r)
        ks = one("sky|condition|conditions|weather|description|summary")(r)
        x = r.random()
        if x < 0.3:
            return shape(r, [(kt, t)]), f"It is {t} degrees in {c}.", [str(t)]
        if x < 0.75:
            p = [(kt, t), (ks, s)]
            if r.random() < 0.3:
                p.insert(0, ("city", c))
            if r.random() < 0.2:
                p.append(("unit", "celsius"))
            return shape(r, p), f"It is {t} degrees and {s} in {c}.", [str(t), s]
        if x < 0.9:
            return f"{t} C, {s}", f"It is {t} degrees and {s} in {c}.", [str(t), s]
        return shape(r, [(ks, s)]), f"The weather in {c} is: {s}.", [s]

    return Case("weather", name, desc, props, [k], polite(rng, q), args, results, c)


def f_noargs(rng):
    """Tools without parameters."""
    what, q, key, vals = rng.choice([
        ("battery", "how full is the battery|what is the battery level|check the battery", "level",
         ["%d%%" % n for n in range(1, 101)]),
        ("date", "what is today's date|what day is it today|which date is it", "date",
         ["2026-%02d-%02d" % (m, d) for m in range(1, 13) for d in range(1, 29)]),
        ("news", "what is in the news|give me the news|any news today", "headline",
         ["A new bridge opens", "The harvest is good", "Trains run late", "A quiet day"]),
        ("ip_address", "what is my ip address|what's my ip|show my ip address", "ip",
         ["10.0.%d.%d" % (a, b) for a in range(9) for b in range(9)]),
        ("users", "how many users are online|who is online|count the users online", "count",
         [str(n) for n in range(1, 99)]),
        ("files", "how many files are there|list my files|count my files", "count",
         [str(n) for n in range(1, 99)]),
        ("disk_space", "how much disk space is free|check the disk space|is the disk full", "free",
         ["%d GB" % n for n in range(1, 900)]),
        ("status", "is the server up|what is the server status|check the server", "status", STATES),
        ("joke", "tell me a joke|do you know a joke|make me laugh", "joke",
         ["Why did the cat sit? It was tired.", "A fish walks into a bar."]),
        ("quote", "give me a quote|tell me a quote", "quote",
         ["Less is more.", "Time flies.", "Slow and steady."])])
    name = camel(rng, rng.choice(["get_", "read_", "fetch_", "show_", "check_"]) + what)
    desc = "Returns the " + what.replace("_", " ") + rng.choice(["", ".", " of this system"])

    def results(r):
        v = r.choice(vals)
        return shape(r, [(key, v)]), f"The answer is: {v}.", [v]

    c = Case("noargs", name, desc, {}, [], polite(rng, rng.choice(q.split("|"))), {}, results,
             what + str(rng.randrange(50)))
    c.null = rng.random() < 0.5
    return c


def calc_value(x):
    x = round(x, 6)
    return str(int(x)) if x == int(x) else str(x)


def f_calculator(rng):
    def num():
        r = rng.random()
        return rng.randrange(0, 100) if r < 0.4 else rng.randrange(100, 1000) if r < 0.7 else \
            rng.randrange(1000, 100000)
    a, b, c = num(), num(), rng.randrange(2, 100)
    r = rng.random()
    if r < 0.8:
        op = rng.choice("+-**/")
        if op == "/":
            b = rng.randrange(2, 50)
            a = b * rng.randrange(2, 200)
        expr = f"{a} {op} {b}"
        word = {"+": "plus", "-": "minus", "*": "times", "/": "divided by"}[op]
        said = rng.choice([expr, expr, f"{a}{op}{b}", f"{a} {word} {b}"])
        if op == "*" and rng.random() < 0.3:
            said = f"{a} x {b}"
    elif r < 0.9:
        expr = f"{a} + {b} * {c}"
        said = expr
    else:
        expr = f"({a} + {b}) * {c}"
        said = expr
    q = one("what is {e}|what's {e}|calculate {e}|compute {e}|how much is {e}|work out {e}|{e}|"
            "{e} = ?|use the calculator for {e}|evaluate {e}|solve {e}|"
            "find {e}")(rng).format(e=said)
    k = one("expression|expression|expr|formula|input|query|equation")(rng)
    props = {k: prop(rng, "string", "The expression|Expression to evaluate|For example 2 + 3|The "
                                    "formula")}
    name = camel(rng, one("calculator|calculate|calc|evaluate|compute|eval_expression|math|"
                          "run_calculation")(rng))
    desc = one("Evaluates an arithmetic expression.|A calculator|Calculate an expression|"
               "Computes a formula and returns the number|Do arithmetic")(rng)

    def results(r):
        v = calc_value(eval(expr))  # digits and operators of our own making
        x = r.random()
        num = float(v) if "." in v else int(v)
        if x < 0.75:
            return shape(r, [(one("result|value|answer|output")(r), num)]), f"{expr} = {v}.", [v]
        return v, f"{expr} = {v}.", [v]

    case = Case("calculator", name, desc, props, [k], polite(rng, q), {k: expr}, results, expr)
    case.expr = k
    return case


def f_currency(rng):
    x = rng.choice([rng.randrange(1, 100), rng.randrange(100, 10000), rng.randrange(1, 500) + 0.5])
    a, b = rng.sample(MONEY, 2)
    ka, kf, kt = rng.choice([("amount", "from", "to"), ("amount", "from_currency", "to_currency"),
                             ("value", "source", "target"), ("amount", "base", "quote")])
    props = {ka: prop(rng, "number", "Amount|How much|Amount of money"),
             kf: prop(rng, "string", "Currency code|From this currency|Source currency"),
             kt: prop(rng, "string", "Currency code|To this currency|Target currency")}
    q = one("convert {x} {a} to {b}|how much is {x} {a} in {b}|what is {x} {a} in {b}|"
            "change {x} {a} into {b}|{x} {a} in {b}|how many {b} do I get for {x} {a}|"
            "exchange {x} {a} to {b}")(rng).format(x=x, a=a, b=b)
    name = camel(rng, one("convert_currency|currency_converter|exchange|convert_money|"
                          "exchange_rate|currency_convert")(rng))
    desc = one("Converts money from one currency to another.|Currency conversion|"
               "Exchange money")(rng)

    def results(r):
        v = round(r.uniform(1, 9999), 2)
        if r.random() < 0.8:
            return (shape(r, [(one("result|converted|value|amount|total")(r), v)]),
                    f"{x} {a} are {v} {b}.", [str(v)])
        return f"{v} {b}", f"{x} {a} are {v} {b}.", [str(v)]

    return Case("currency", name, desc, props, [ka, kf, kt], polite(rng, q),
                {ka: x, kf: a, kt: b}, results, f"{x}{a}{b}")


def f_time(rng):
    c = city(rng)
    k = one("city|location|place|timezone|zone")(rng)
    props = {k: prop(rng, "string", "City|The place|Where|Name of the city")}
    q = one("what time is it in {c}|what's the time in {c}|current time in {c}|time in {c}|"
            "tell me the time in {c}|how late is it in {c}|what is the local time in {c}|"
            "give me the time in {c}")(rng).format(c=c)
    name = camel(rng, one("get_time|current_time|time_in_city|clock|get_local_time|"
                          "world_clock")(rng))
    desc = one("Get the time in a city.|Local time of a place|Returns the current time")(rng)

    def results(r):
        t = "%02d:%02d" % (r.randrange(24), r.randrange(60))
        if r.random() < 0.75:
            return (shape(r, [(one("time|local_time|now|clock|result")(r), t)]),
                    f"It is {t} in {c}.", [t])
        return t, f"It is {t} in {c}.", [t]

    return Case("time", name, desc, props, [k], polite(rng, q), {k: c}, results, c)


def f_search(rng):
    t = rng.choice(TOPIC) if rng.random() < 0.6 else rng.choice(TASKS + PHRASES + FOOD) + " " + \
        rng.choice(["guide", "news", "history", "ideas", "tips", "2025"])
    k = one("query|query|q|text|search_query|keywords|term")(rng)
    props = {k: prop(rng, "string", "What to search for|The query|Search words")}
    if rng.random() < 0.25:
        props[one("limit|top_k|max_results|n")(rng)] = prop(rng, "integer", "Most results|How many")
    q = one("search for {t}|search the web for {t}|look up {t}|find pages about {t}|google {t}|"
            "find information about {t}|search {t}|do a search for {t}|what can you find about {t}|"
            "look for {t} online")(rng).format(t=t)
    name = camel(rng, one("search|web_search|search_web|find_pages|internet_search|lookup|"
                          "search_engine")(rng))
    desc = one("Searches the web.|Search the internet|Finds pages for a query|Web search")(rng)

    def results(r):
        n = r.randrange(2, 90)
        title = r.choice(["All about ", "A guide to ", "The story of ", "Notes on "]) + t
        if r.random() < 0.5:
            return (shape(r, [("count", n), (one("top|first|title|best")(r), title)]),
                    f"I found {n} results. The first one is: {title}.", [str(n), title])
        return (shape(r, [(one("title|top|result|first")(r), title)]),
                f"The first result is: {title}.", [title])

    return Case("search", name, desc, props, [k], polite(rng, q), {k: t}, results, t)


def f_stock(rng):
    s = "".join(rng.choice("ABCDEFGHIKLMNOPRSTUV") for _ in range(rng.choice((3, 4))))
    k = one("symbol|ticker|stock|code")(rng)
    props = {k: prop(rng, "string", "Ticker|The symbol|Stock symbol")}
    q = one("what is the price of {s}|what is the stock price of {s}|how is {s} doing|"
            "price of {s} stock|get the quote for {s}|what does {s} trade at|"
            "how much is one {s} share")(rng).format(s=s)
    name = camel(rng, one("get_stock_price|stock_price|quote|get_quote|share_price|"
                          "stock_quote")(rng))
    desc = one("Get the price of a stock.|Stock quote|Returns the last price of a share")(rng)

    def results(r):
        v = round(r.uniform(1, 999), 2)
        return (shape(r, [(one("price|last|value|quote|close")(r), v)]),
                f"{s} is at {v}.", [str(v)])

    return Case("stock", name, desc, props, [k], polite(rng, q), {k: s}, results, s)


def f_translate(rng):
    t, l = rng.choice(PHRASES), rng.choice(LANGS)
    kt, kl = rng.choice([("text", "language"), ("text", "target"), ("phrase", "to"),
                         ("input", "target_language"), ("sentence", "lang")])
    props = {kt: prop(rng, "string", "The text|Text to translate"),
             kl: prop(rng, "string", "Language|Target language|Into this language")}
    q = one('translate "{t}" to {l}|translate "{t}" into {l}|how do you say "{t}" in {l}|'
            'what is "{t}" in {l}|say "{t}" in {l}')(rng).format(t=t, l=l)
    name = camel(rng, one("translate|translate_text|translator|get_translation")(rng))
    desc = one("Translates text.|Translate a text into a language|Translation service")(rng)

    def results(r):
        v = " ".join("".join(r.choice(SYL) for _ in range(r.choice((1, 2, 3))))
                     for _ in range(r.choice((1, 2, 3))))
        return (shape(r, [(one("translation|result|text|output")(r), v)]),
                f'"{t}" in {l} is "{v}".', [v])

    return Case("translate", name, desc, props, [kt, kl], polite(rng, q), {kt: t, kl: l}, results,
                t + l)


def f_timer(rng):
    n = rng.randrange(1, 121)
    unit = rng.choice(["minutes", "minutes", "seconds", "hours"])
    k = rng.choice([unit, unit, "duration"]) if unit != "hours" else "hours"
    props = {k: prop(rng, "integer", f"How many {unit}|Length in {unit}")}
    if k == "duration":
        props[k]["description"] = f"Length in {unit}"
    q = one("set a timer for {n} {u}|start a timer of {n} {u}|timer for {n} {u}|"
            "wake me in {n} {u}|set the timer to {n} {u}|count down {n} {u}")(rng).format(n=n,
                    u=unit)
    name = camel(rng, one("set_timer|start_timer|timer|countdown|create_timer")(rng))
    desc = one("Sets a timer.|Start a timer|A countdown timer")(rng)

    def results(r):
        return (shape(r, [r.choice([("ok", True), ("status", "started"), ("done", True),
                                    ("status", "ok")])]),
                f"The timer is set for {n} {unit}.", [str(n)])

    return Case("timer", name, desc, props, [k], polite(rng, q), {k: n}, results, f"{n}{unit}")


def f_reminder(rng):
    t = rng.choice(TASKS)
    h = "%02d:%02d" % (rng.randrange(6, 23), rng.choice((0, 15, 30, 45)))
    kt, kh = rng.choice([("text", "time"), ("task", "time"), ("title", "at"), ("message", "when")])
    props = {kt: prop(rng, "string", "What to do|The text"),
             kh: prop(rng, "string", "When|Time, HH:MM")}
    q = one("remind me to {t} at {h}|set a reminder to {t} at {h}|at {h} remind me to {t}|"
            "add a reminder for {h}: {t}|create a reminder to {t} at {h}")(rng).format(t=t, h=h)
    name = camel(rng, one("create_reminder|set_reminder|add_reminder|remind|new_reminder")(rng))
    desc = one("Creates a reminder.|Remind the user of a task|Adds a reminder")(rng)

    def results(r):
        return (shape(r, [r.choice([("ok", True), ("status", "saved"), ("status", "ok")])]),
                f"I will remind you to {t} at {h}.", [t, h])

    return Case("reminder", name, desc, props, [kt, kh], polite(rng, q), {kt: t, kh: h}, results,
                t + h)


def f_message(rng):
    p, t = rng.choice(PEOPLE), rng.choice(TASKS + PHRASES)
    kp, kt = rng.choice([("to", "text"), ("recipient", "message"), ("name", "body"),
                         ("to", "message")])
    props = {kp: prop(rng, "string", "Who|Name of the person"),
             kt: prop(rng, "string", "The text|What to say")}
    q = one('send "{t}" to {p}|send {p} the message "{t}"|text {p} "{t}"|write to {p}: "{t}"|'
            'tell {p} "{t}"')(rng).format(t=t, p=p)
    name = camel(rng, one("send_message|send_text|send_mail|message|send_sms|text_person")(rng))
    desc = one("Sends a message to a person.|Send a text|Write to somebody")(rng)

    def results(r):
        return (shape(r, [r.choice([("sent", True), ("status", "sent"), ("ok", True)])]),
                f'I sent "{t}" to {p}.', [t, p])

    return Case("message", name, desc, props, [kp, kt], polite(rng, q), {kp: p, kt: t}, results,
                p + t)


def f_music(rng):
    s = rng.choice(SONGS) if rng.random() < 0.7 else city(rng)
    k = one("song|title|track|name")(rng)
    props = {k: prop(rng, "string", "The song|Title of the song")}
    q = one("play {s}|play the song {s}|put on {s}|start the song {s}|I want to hear {s}|"
            "play {s} now")(rng).format(s=s)
    name = camel(rng, one("play_music|play_song|play|music_player|start_song")(rng))
    desc = one("Plays a song.|Play music|Start a song")(rng)

    def results(r):
        return (shape(r, [r.choice([("status", "playing"), ("ok", True), ("playing", True)])]),
                f"Now playing {s}.", [s])

    return Case("music", name, desc, props, [k], polite(rng, q), {k: s}, results, s)


def f_define(rng):
    w = rng.choice(WORDS) if rng.random() < 0.5 else "".join(rng.choice(SYL) for _ in range(3))
    k = one("word|term|word|entry")(rng)
    props = {k: prop(rng, "string", "The word|Word to look up")}
    q = one("what does {w} mean|define {w}|what is the meaning of {w}|look up the word {w}|"
            "give me the definition of {w}|what is the definition of {w}")(rng).format(w=w)
    name = camel(rng, one("define|define_word|dictionary|get_definition|word_lookup")(rng))
    desc = one("Looks up a word in a dictionary.|Dictionary|Returns the meaning of a word")(rng)

    def results(r):
        v = r.choice(["very calm", "clear and easy", "a small field", "quick and strong",
                      "a kind of stone", "an old story", "to think well", "a safe place",
                      "not common", "full of light", "a short text", "a shiny surface"])
        return (shape(r, [(one("meaning|definition|result|text")(r), v)]), f"{w} means: {v}.", [v])

    return Case("define", name, desc, props, [k], polite(rng, q), {k: w}, results, w)


def f_random(rng):
    a = rng.choice((0, 1, 1, 10, rng.randrange(0, 100)))
    b = a + rng.randrange(5, 1000)
    ka, kb = rng.choice([("min", "max"), ("low", "high"), ("from", "to"), ("start", "end")])
    props = {ka: prop(rng, "integer", "Smallest|Lower end"),
             kb: prop(rng, "integer", "Largest|Upper end")}
    q = one("give me a random number between {a} and {b}|random number from {a} to {b}|"
            "pick a number between {a} and {b}|draw a number from {a} to {b}")(rng).format(a=a, b=b)
    name = camel(rng, one("random_number|get_random_number|random_int|draw_number")(rng))
    desc = one("Returns a random number.|Random integer in a range|Draws a number")(rng)

    def results(r):
        v = r.randrange(a, b + 1)
        if r.random() < 0.7:
            return shape(r, [(one("number|value|result")(r), v)]), f"The number is {v}.", [str(v)]
        return str(v), f"The number is {v}.", [str(v)]

    return Case("random", name, desc, props, [ka, kb], polite(rng, q), {ka: a, kb: b}, results,
                f"{a}-{b}")


def f_light(rng):
    room, state = rng.choice(ROOMS), rng.choice(["on", "off"])
    kr, ks = rng.choice([("room", "state"), ("room", "switch"), ("place", "state"),
                         ("where", "power")])
    props = {kr: prop(rng, "string", "The room|Which room"),
             ks: prop(rng, "string", "On or off|New state", enum=["on", "off"])}
    q = one("turn {s} the light in the {r}|switch {s} the {r} light|turn the {r} light {s}|"
            "turn the lights in the {r} {s}|lights {s} in the {r}|switch the {r} light {s}")(rng) \
        .format(s=state, r=room)
    name = camel(rng, one("set_light|light_switch|turn_light|switch_light|control_light")(rng))
    desc = one("Turns a light on or off.|Switch the light of a room|Light control")(rng)

    def results(r):
        return (shape(r, [r.choice([("ok", True), ("state", state), ("status", "ok")])]),
                f"The light in the {room} is now {state}.", [room, state])

    return Case("light", name, desc, props, [kr, ks], polite(rng, q), {kr: room, ks: state},
                results,
                room + state)


def f_distance(rng):
    a, b = city(rng), city(rng)
    ka, kb = rng.choice([("from", "to"), ("origin", "destination"), ("start", "end"),
                         ("city_a", "city_b")])
    props = {ka: prop(rng, "string", "First city|Where from"),
             kb: prop(rng, "string", "Second city|Where to")}
    q = one("how far is it from {a} to {b}|distance from {a} to {b}|"
            "what is the distance between {a} and {b}|how far is {b} from {a}|"
            "how many km from {a} to {b}")(rng).format(a=a, b=b)
    name = camel(rng, one("get_distance|distance|route_length|measure_distance|"
                          "distance_between")(rng))
    desc = one("Distance between two cities.|Returns the distance of two places|How far apart "
               "places are")(rng)

    def results(r):
        v = r.randrange(10, 12000)
        return (shape(r, [(one("km|distance_km|distance|kilometers")(r), v)]),
                f"It is {v} km from {a} to {b}.", [str(v)])

    return Case("distance", name, desc, props, [ka, kb], polite(rng, q), {ka: a, kb: b}, results,
                a + b)


def f_food(rng):
    c, f = city(rng), rng.choice(FOOD)
    kc, kf = rng.choice([("city", "food"), ("location", "cuisine"), ("place", "dish"),
                         ("city", "type")])
    props = {kc: prop(rng, "string", "The city|Where"),
             kf: prop(rng, "string", "What to eat|Kind of food")}
    q = one("find {f} in {c}|where can I eat {f} in {c}|find a place for {f} in {c}|"
            "I want {f} in {c}|find restaurants with {f} in {c}")(rng).format(f=f, c=c)
    name = camel(rng, one("find_restaurant|find_restaurants|restaurant_search|find_food|"
                          "search_restaurants")(rng))
    desc = one("Finds restaurants.|Restaurants in a city|Find a place to eat")(rng)

    def results(r):
        v = r.choice(["Casa", "Villa", "Bistro", "Chez", "Cafe"]) + " " + city(r)
        return (shape(r, [(one("name|restaurant|best|result|top")(r), v)]),
                f"You can try {v} in {c}.", [v])

    return Case("food", name, desc, props, [kc, kf], polite(rng, q), {kc: c, kf: f}, results, c + f)


def f_lookup(rng):
    """Any noun with an id: the name can only come from the declaration."""
    n = rng.choice(NOUNS)
    v = rng.randrange(1, 10 ** rng.choice((2, 3, 4, 5)))
    is_text = rng.random() < 0.4
    if is_text and rng.random() < 0.5:
        v = rng.choice("ABCDEFGH") + str(v)
    k = rng.choice([n + "_id", "id", n, n + "_number", "number"])
    props = {k: prop(rng, "string" if is_text else "integer", f"The {n}|Id of the {n}|Which {n}")}
    q = one("show me {n} {v}|what is the status of {n} {v}|find {n} {v}|look up {n} {v}|"
            "get {n} {v}|where is {n} {v}|open {n} {v}|check {n} {v}|tell me about {n} {v}|"
            "I need the data of {n} {v}|is {n} {v} ready")(rng).format(n=n, v=v)
    name = camel(rng, rng.choice(["get_", "find_", "fetch_", "lookup_", "show_", "read_",
                                  "load_"]) + n)
    if rng.random() < 0.2:
        name = n + rng.choice(["_status", "_info", "_lookup", "_data"])
    desc = one(f"Looks up a {n}.|Get one {n}|Returns the {n} with this id|Data of a {n}")(rng)

    def results(r):
        s = r.choice(STATES)
        ks = one("status|state|result")(r)
        if r.random() < 0.5:
            p = [("id", v), (ks, s)] if r.random() < 0.5 else [(ks, s)]
            return shape(r, p), f"The status of {n} {v} is: {s}.", [s]
        x = r.choice(PEOPLE)
        return (shape(r, [(ks, s), (one("name|owner|by")(r), x)]),
                f"The status of {n} {v} is: {s}, name: {x}.", [s, x])

    return Case("lookup", name, desc, props, [k], polite(rng, q),
                {k: str(v) if is_text else v}, results, f"{n}{v}")


FAMILIES = [(f_weather, 5), (f_calculator, 4), (f_currency, 2), (f_time, 2), (f_search, 2),
            (f_stock, 1), (f_translate, 1), (f_timer, 1), (f_reminder, 1), (f_message, 1),
            (f_music, 1), (f_define, 1), (f_random, 1), (f_light, 1), (f_distance, 1), (f_food, 1),
            (f_noargs, 2),
            (f_lookup, 5)]
POOL = [f for f, w in FAMILIES for _ in range(w)]


def others(rng, case, n):
    """n further declarations of other families (and other names)."""
    out, names, fams = [], {case.name} if case else set(), {case.family} if case else set()
    while len(out) < n:
        c = rng.choice(POOL)(rng).extra(rng)
        if c.name not in names and (c.family not in fams or c.family == "lookup"):
            if c.family == "lookup" and case and c.name.split("_")[-1] in case.name:
                continue
            if {c.family} | fams >= {"search", "define"} or {c.family} | fams >= {"search",
                    "lookup"}:
                continue  # both could serve the same question
            out.append(c)
            names.add(c.name)
            fams.add(c.family)
    return out


def args_json(rng_or_none, args):
    return json.dumps(args, separators=(",", ":"))


def call_work(case, effort):
    if effort == "low":
        return f"Use {case.name}."
    args = ", ".join(f"{k} {v}" for k, v in case.args.items()) or "none"
    s = f"The tool {case.name} fits: {case.desc.rstrip('.')}. Arguments: {args}."
    if effort == "high" and not case.args:
        s += " Check: the tool takes no arguments, so the object is empty. Right."
    elif effort == "high":
        types = ", ".join(f"{k} is a {case.props[k]['type']}" for k in case.args)
        s += f" Check: needed are {', '.join(case.required)}; {types}. The call is complete. Right."
    return s


def result_work(case, values, effort):
    v = ", ".join(values)
    if effort == "low":
        return f"Got: {v}."
    s = f"The tool {case.name} has answered. What matters: {v}. I tell the user."
    if effort == "high":
        asked = ", ".join(str(x) for x in case.args.values()) or "nothing"
        s += f" Check: the user asked with {asked}, and the tool gave {v}. Right."
    return s


def error_result(rng, case):
    e = rng.choice(["not found", "service not available", "timeout", "bad request", "no data",
                    "access denied", "unknown value", "try again later"])
    return (json.dumps({"error": e}), f"The tool reported an error: {e}.", [e])


def valid_call(text, tools, name):
    """Whether a call's arguments are JSON that fits the named tool's schema."""
    decl = next((t["function"] for t in tools if t["function"]["name"] == name), None)
    if decl is None:
        return False
    try:
        args = json.loads(text)
    except ValueError:
        return False
    if not isinstance(args, dict):
        return False
    params = decl.get("parameters") or {"properties": {}, "required": []}
    props = params["properties"]
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list}
    for k, v in args.items():
        if k not in props or not isinstance(v, kinds[props[k]["type"]]):
            return False
        if "enum" in props[k] and v not in props[k]["enum"]:
            return False
    return all(k in args for k in params["required"])


def same_args(text, want):
    """Whether the arguments are the wanted ones (spaces inside strings do not matter)."""
    norm = lambda d: {k: re.sub(r"\s+", "", str(v)) for k, v in d.items()}
    try:
        return norm(json.loads(text)) == norm(want)
    except (ValueError, AttributeError):
        return False
