"""Small tables of facts and words that the corpus draws from."""

CAPITALS = [tuple(x.split("/")) for x in """
France/Paris;Germany/Berlin;Italy/Rome;Spain/Madrid;Portugal/Lisbon;United Kingdom/London
Ireland/Dublin;Netherlands/Amsterdam;Belgium/Brussels;Luxembourg/Luxembourg City
Switzerland/Bern;Austria/Vienna;Poland/Warsaw;Czech Republic/Prague;Slovakia/Bratislava
Hungary/Budapest;Romania/Bucharest;Bulgaria/Sofia;Greece/Athens;Turkey/Ankara;Norway/Oslo
Sweden/Stockholm;Finland/Helsinki;Denmark/Copenhagen;Iceland/Reykjavik;Estonia/Tallinn
Latvia/Riga;Lithuania/Vilnius;Ukraine/Kyiv;Belarus/Minsk;Russia/Moscow;Serbia/Belgrade
Croatia/Zagreb;Slovenia/Ljubljana;Albania/Tirana;Malta/Valletta;Cyprus/Nicosia;Georgia/Tbilisi
Armenia/Yerevan;Azerbaijan/Baku;Kazakhstan/Astana;Uzbekistan/Tashkent;Mongolia/Ulaanbaatar
China/Beijing;Japan/Tokyo;South Korea/Seoul;North Korea/Pyongyang;India/New Delhi
Pakistan/Islamabad;Bangladesh/Dhaka;Nepal/Kathmandu;Thailand/Bangkok;Vietnam/Hanoi;Laos/Vientiane
Cambodia/Phnom Penh;Malaysia/Kuala Lumpur;Indonesia/Jakarta;Philippines/Manila
Singapore/Singapore;Australia/Canberra;New Zealand/Wellington;Fiji/Suva;Iran/Tehran;Iraq/Baghdad
Israel/Jerusalem;Jordan/Amman;Lebanon/Beirut;Syria/Damascus;Saudi Arabia/Riyadh;Qatar/Doha
Kuwait/Kuwait City;Oman/Muscat;Yemen/Sanaa;United Arab Emirates/Abu Dhabi;Egypt/Cairo
Libya/Tripoli;Tunisia/Tunis;Algeria/Algiers;Morocco/Rabat;Sudan/Khartoum;Ethiopia/Addis Ababa
Kenya/Nairobi;Uganda/Kampala;Rwanda/Kigali;Tanzania/Dodoma;Somalia/Mogadishu;Ghana/Accra
Nigeria/Abuja;Senegal/Dakar;Mali/Bamako;Cameroon/Yaounde;Angola/Luanda;Zambia/Lusaka
Zimbabwe/Harare;Botswana/Gaborone;Namibia/Windhoek;South Africa/Pretoria;Madagascar/Antananarivo
Mozambique/Maputo;Canada/Ottawa;United States/Washington;Mexico/Mexico City;Cuba/Havana
Jamaica/Kingston;Guatemala/Guatemala City;Honduras/Tegucigalpa;Nicaragua/Managua
Costa Rica/San Jose;Panama/Panama City;Colombia/Bogota;Venezuela/Caracas;Ecuador/Quito
Peru/Lima;Bolivia/Sucre;Chile/Santiago;Argentina/Buenos Aires;Uruguay/Montevideo
Paraguay/Asuncion;Brazil/Brasilia;Afghanistan/Kabul;Sri Lanka/Colombo;Moldova/Chisinau
""".replace("\n", ";").strip(";").split(";")]

FRUITS = """strawberry banana apple orange cherry pear grape lemon mango papaya peach plum kiwi
blueberry raspberry blackberry pineapple coconut avocado tomato potato carrot cucumber pepper
broccoli spinach cabbage lettuce onion garlic mississippi mirror bookkeeper coffee committee
balloon letter little butter rabbit kitten puppy summer winter spring autumn hello world
computer language model architecture elephant giraffe crocodile hippopotamus butterfly
chocolate tennessee massachusetts successful occurrence necessary parallel referee
""".split()

THINGS = """apples books pens stamps coins marbles cards eggs cookies pencils shells toys stickers
flowers oranges bottles stones chairs tickets candles""".split()
PEOPLE = """Anna Tom Maria Ben Lucy Sam Nina Paul Eva Max Lena Jack Mia Leo Sara Omar Ravi Mei Ivan
Kate Noah Emma Liam Zoe Ali Yuki Hugo Rosa Finn Ida""".split()

CITIES = [c for _, c in CAPITALS] + """New York;Los Angeles;Chicago;Houston;Boston;Seattle;Miami;
Denver;Dallas;Atlanta;San Francisco;Las Vegas;Toronto;Montreal;Vancouver;Hamburg;Munich;Cologne;
Frankfurt;Milan;Naples;Turin;Venice;Florence;Barcelona;Valencia;Seville;Lyon;Marseille;Nice;
Toulouse;Porto;Zurich;Geneva;Basel;Krakow;Gdansk;Istanbul;Izmir;Bergen;Gothenburg;Malmo;Aarhus;
Manchester;Liverpool;Leeds;Bristol;Glasgow;Edinburgh;Cardiff;Belfast;Cork;Saint Petersburg;Kazan;
Mumbai;Kolkata;Chennai;Bangalore;Karachi;Lahore;Shanghai;Shenzhen;Guangzhou;Hong Kong;Taipei;
Osaka;Kyoto;Nagoya;Sapporo;Busan;Sydney;Melbourne;Brisbane;Perth;Auckland;Lagos;Casablanca;
Cape Town;Durban;Johannesburg;Alexandria;Dubai;Rio de Janeiro;Sao Paulo;Salvador;Medellin;Cusco;
Rosario;Cordoba;Guadalajara;Monterrey;Tijuana""".replace("\n", "").split(";")
