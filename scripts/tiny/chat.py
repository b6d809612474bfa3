"""Greetings, questions about the model itself, and polite refusals of all else."""
from skills import CLOSE, OPEN, Problem

ME = "gloss's tiny demonstration model of the gpt-oss architecture"
CAN = ("I can compute with small numbers, compare and sort numbers, reverse and spell words, "
       "count letters, name capitals, convert units, answer A-D questions and call tools.")

# intent -> (what users say, final answer, word the answer must hold, short note)
INTENTS = {
    "hello": ("hi;hello;hey;hi there;hello there;hey there;good morning;good evening;good "
              "afternoon;"
              "hello!;hiya;greetings;howdy;yo;good day;hi gloss;hello gloss;hey you;hi model;"
              "hello model;hello friend;hey gloss;hello, nice to meet you;nice to meet you;"
              "morning;evening;hello again;hi again;hey again;hello hello;sup;heya;bonjour;hola;"
              "hallo;ciao;hello world;hi everyone;hi bot;hello bot;hey bot;anyone there;"
              "is anybody there;are you there;can you hear me;test;testing;ping;start;let's start;"
              "let's begin;hello assistant;hi assistant;hey assistant;hi chatgpt;hello chatgpt",
              f"Hello! I am {ME}. How can I help?", "Hello", "A greeting. Greet back."),
    "who": ("who are you;what are you;what is your name;what's your name;who is this;"
            "tell me about yourself;introduce yourself;who am i talking to;are you chatgpt;"
            "are you an ai;are you a robot;are you human;are you a person;what model are you;"
            "which model are you;who made you;who built you;what is gloss;are you gpt-4;"
            "are you gpt-oss;what kind of model are you;who r u;do you have a name;"
            "can you introduce yourself;what should i call you;are you a language model;"
            "which language model is this;what is this;what am i talking to;are you real;"
            "are you a bot;are you a machine;are you gloss;what type of ai are you;"
            "describe yourself;say who you are;tell me who you are;tell me what you are;"
            "so who are you;and who are you;who exactly are you;what exactly are you;"
            "please introduce yourself;how big are you;how many parameters do you have;"
            "who created you;who trained you;who developed you;where do you come from;"
            "are you openai;were you made by openai;what version are you;what are you called;"
            "your name;name;identify yourself;state your name;are you an llm;is this chatgpt;"
            "is this gpt-oss;is this gpt;am i talking to a human;am i talking to a person;"
            "what is the name of this model;what model is this;which model is this;"
            "what ai is this;which ai are you",
            f"I am {ME}. {CAN}", "tiny demonstration model", "The user asks who I am."),
    "can": ("what can you do;what are you able to do;what do you know;how can you help me;"
            "what are your skills;help;what can i ask you;what is this for;can you help me;"
            "what can i do here;how do you work;what are you good at;what should i ask;"
            "tell me what you can do;what tasks can you do;give me some examples;show me what you "
            "can do;"
            "list your skills;what can you help with;what questions can you answer;i need help;"
            "help me;please help;can you help;what are your abilities;what are your capabilities;"
            "what is your purpose;what are you for;what do you do;what can you tell me;"
            "what kind of questions can i ask;what sort of things can you do;what things can you "
            "do;"
            "how can i use you;what else can you do;what can this model do;what is this model for;"
            "what is this model good at;what are you made for;what are you trained for;"
            "what were you trained to do;what were you trained on;what can you not do;"
            "what can't you do;what are your limits",
            f"I am {ME}. {CAN}", "tiny demonstration model", "The user asks what I can do."),
    "thanks": ("thanks;thank you;thanks a lot;thank you very much;thx;great, thanks;many thanks;"
               "thanks!;cool, thank you;nice, thanks;ty;thanks for your help;thank you so much;"
               "perfect, thank you;ok thanks;awesome, thanks;that helps, thanks;well done;good job;"
               "great;nice;good;perfect;cool;awesome;wow;great job;nice work;good work;excellent;"
               "that is right;correct;you are right;thanks again;thank you again;much appreciated;"
               "i appreciate it;thank you for the answer;thanks for the answer;very good;super;"
               "thank you gloss;thanks gloss;cheers;that was helpful;very helpful;merci;danke;"
               "gracias",
               "You are welcome!", "welcome", "The user is happy. Answer kindly."),
    "bye": ("bye;goodbye;see you;see you later;good night;bye bye;farewell;talk to you later;"
            "i have to go;that's all;that is all;see you tomorrow;until next time;ciao for now;"
            "i am leaving;quit;exit;stop;bye for now;goodbye gloss;bye gloss;have a nice day;"
            "take care;see ya;cya;later;good bye;so long;that was all;i am done;we are done;"
            "done;end;i must go now;have a good day;have a good evening;nothing else;no more "
            "questions",
            "Goodbye!", "Goodbye", "The user says goodbye."),
    "how": ("how are you;how are you doing;how do you do;how is it going;how are you today;"
            "what's up;whats up;how's it going;are you ok;are you well;how do you feel;"
            "how have you been;how was your day;how is your day;are you fine;everything ok;"
            "are you happy;how are things;how is life;you ok;all good;how are you feeling;"
            "hi, how are you;hello, how are you;hey, how are you;hey how's it going;"
            "how are you doing today;are you tired;did you sleep well;how do you feel today",
            "I am well, thank you! What can I compute for you?", "well",
            "Small talk. Answer kindly."),
}
INTENTS = {k: ([x for x in v[0].split(";") if x],) + v[1:] for k, v in INTENTS.items()}

TOPICS = """the sea;love;the moon;quantum physics;black holes;football;the weather;my cat;dogs;
history;the Roman empire;politics;music;jazz;cooking;pizza;bread;a dragon;a robot;space travel;
climate change;the stock market;bitcoin;machine learning;neural networks;Python;Java;the internet;
Shakespeare;Napoleon;Einstein;evolution;gravity;philosophy;happiness;the meaning of life;dreams;
winter;summer;a holiday;a birthday party;my boss;a job interview;a diet;exercise;sleep;medicine;
a headache;the law;taxes;gardening;roses;trees;the desert;mountains;volcanoes;earthquakes;oceans;
dinosaurs;whales;birds;chess;video games;movies;books;poetry;painting;photography;fashion;cars;
bicycles;trains;airplanes;energy;solar power;water;chemistry;biology;DNA;the brain;memory;time;
light;sound;art;religion;school;teachers;friendship;family;marriage;money;work;a startup;email;
the economy;war;peace;freedom;democracy;the future;aliens;ghosts;magic;coffee;tea;wine;chocolate;
cheese;soup;a cake;travel;Paris;London;Japan;Italy;the Olympics;tennis;swimming;running;yoga;
the universe;stars;planets;Mars;rockets;satellites;telescopes;computers;phones;batteries;
encryption;databases;Linux;compilers;algorithms;sorting algorithms;calculus;geometry;statistics;
probability;logic;grammar;French;Spanish;Latin;spelling;novels;fairy tales;pirates;knights;
castles""" \
    .replace("\n", "").split(";")
OOS = """write a poem about {t};tell me a story about {t};explain {t};what do you think about {t};
what is {t};write an essay about {t};tell me a joke about {t};tell me about {t};
why is {t} important;
who invented {t};how does {t} work;write a song about {t};give me advice on {t};summarize {t};
what is the history of {t};write a short story about {t};write code about {t};can you draw {t};
do you like {t};what do you know about {t};describe {t};write a letter about {t};
give me three facts about {t};how do I learn about {t};recommend a book about {t};
explain {t} to a child;what is your opinion on {t};make a plan for {t};is {t} good or bad;
translate a text about {t};write a tweet about {t};when was {t} discovered;where can I find {t};
what is the best thing about {t};I want to talk about {t};let's talk about {t};
write a program about {t};how much does {t} cost;who is the most famous person in {t};
what is the news about {t};why do people like {t};can you explain {t};I have a question about {t};
what are the rules of {t};write a haiku about {t};what is the difference between {t} and {u};
which is better, {t} or {u};compare {t} with {u};I love {t};I do not like {t};do you know {t};
teach me {t};show me a picture of {t};what does {t} mean;define {t};what happened to {t};
how old is {t};what color is {t};help me with {t};please write about {t};
""".replace("\n", "").strip(";").split(";")
OOS_FIXED = """what is the weather today;what time is it;tell me a joke;
who won the world cup in 2010;who is the president of the United States;write a poem;sing a song;
how do I cook rice;what should I eat tonight;translate good morning into French;fix my code;
write a function in C;why is the sky blue;how far is the sun;what is the speed of light;
who wrote Hamlet;who painted the Mona Lisa;what is the largest animal;how many people live in China;
recommend a movie;what is your favorite color;do you dream;can you feel pain;are you alive;
what is the answer to everything;what is pi;solve x + 2 = 5;what is the square root of 16;
what is 2 to the power of 8;integrate x squared;what is 10 percent of 50;prove that 1 = 2;
write an email to my boss;what is the population of Germany;how tall is Mount Everest;
what language do they speak in Brazil;what is the currency of Japan;
who was the first man on the moon;
when did the war end;how old is the earth;what is the longest river;what is the deepest ocean;
play chess with me;let us play a game;roll a die;flip a coin;give me a random number;
what is my name;where am I;where do you live;how old are you;what did I say before;
tell me a secret;make me laugh;asdf;qwerty;blah blah;lorem ipsum;???;what;why;no;yes;maybe;ok;
I am sad;I am bored;I am hungry;I feel sick;is there a god;what happens after death;
write a regular expression for emails;explain recursion;what is a monad;what is a transformer;
what is attention;summarize this text;correct my grammar;what is the plural of mouse;
give me a synonym for happy;what rhymes with cat;how do you say hello in Japanese;
what is the opposite of hot;name three animals;list five fruits;name a color;count to ten;
say something;say hello in Spanish;repeat after me;finish this sentence;guess my age;
who is the king of England;what is the tallest building;how do planes fly;what is electricity""" \
    .replace("\n", "").split(";")


def say(rng, s):
    if rng.random() < 0.55:
        s = s[0].upper() + s[1:]
    r = rng.random()
    if s[-1].isalpha():
        s += "?" if r < 0.35 else "!" if r < 0.5 else "." if r < 0.65 else ""
    return s


def smalltalk(rng):
    kind = rng.choice(["hello", "hello", "who", "who", "who", "can", "can", "thanks", "bye", "how"])
    lines, final, must, note = INTENTS[kind]
    line = rng.choice(lines)
    q = say(rng, line)

    def work(effort):
        if effort == "low":
            return note
        s = f'The user says "{line}". {note} I answer in one or two sentences.'
        if effort == "high":
            s += (" No computing and no tool is needed here. "
                  "Check: the answer is kind and true. Right.")
        return s

    return Problem("greetings", kind + ":" + q, q, work, final,
                   {"type": "contains", "value": must})


FOREIGN_UNITS = ("miles;feet;inches;yards;pounds;ounces;gallons;acres;knots;stones;cups;"
                 "pints").split(";")


def out_of_scope(rng):
    if rng.random() < 0.08:
        u = rng.choice(FOREIGN_UNITS)
        v = rng.choice(["km", "m", "cm", "kg", "g", "liters", "kilometers", "meters", "grams",
                        rng.choice(FOREIGN_UNITS)])
        if rng.random() < 0.5:
            u, v = v, u
        line = key = rng.choice(["convert {n} {u} to {v}", "how many {v} are {n} {u}",
                                 "{n} {u} in {v}",
                                 "what is {n} {u} in {v}", "{n} {u} to {v}"]).format(
                                     n=rng.randrange(1, 200), u=u, v=v)
    elif rng.random() < 0.08:
        n = rng.randrange(2, 999)
        line = key = rng.choice(["is {n} a prime number", "is {n} prime",
                                 "what is the square root of {n}",
                                 "what is {p} percent of {n}", "what is {p}% of {n}",
                                 "what is the logarithm of {n}",
                                 "what are the factors of {n}", "factorize {n}",
                                 "what is {n} in binary",
                                 "what is {n} in Roman numerals", "what is {n} factorial",
                                 "what is sin({n})",
                                 "is {n} a square number", "round {n} to the nearest ten"]).format(
                                     n=n, p=rng.randrange(1, 100))
    elif rng.random() < 0.05:
        ws = rng.sample(TOPICS, 3)
        line = key = rng.choice(["sort {l}", "sort these words: {l}",
                                 "put {l} in alphabetical order",
                                 "which is longer, {l}"]).format(l=", ".join(ws))
    elif rng.random() < 0.3:
        line = key = rng.choice(OOS_FIXED)
    else:
        t, u = rng.sample(TOPICS, 2)
        o = rng.choice(OOS)
        line = o.format(t=t, u=u)
        key = line
    q = line
    if rng.random() < 0.15:
        q = rng.choice(OPEN) + q
    if rng.random() < 0.06:
        q += rng.choice(CLOSE)
    q = say(rng, q)
    if line in OOS_FIXED:
        key = q
    final = f"I am only a tiny demonstration model, so I cannot help with that. {CAN}"

    def work(effort):
        if effort == "low":
            return "Not one of my skills."
        s = "The user asks for something that is not one of my skills. I say so and name my skills."
        if effort == "high":
            s += (" Check: it is no sum, no list of numbers, no word puzzle, no capital and "
                  "no unit. Right.")
        return s

    return Problem("out of scope", key, q, work, final,
                   {"type": "contains", "value": "only a tiny demonstration model"})
