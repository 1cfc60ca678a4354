"""Task effect: the kind of a sound effect, from games and programs that were not heard in training."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from corpus.audio import trim
from corpus.clips import Clip, Skip, Task
from corpus.hashing import by_hash
from corpus.packages import Packages
from corpus.sounds import Sound, sounds, windows
from corpus.splits import Given
from unfused_ray.audio.errors import AudioError

_CAP = 24
"""Largest number of sounds of a class from one package, so that no game dominates a class."""
_SECONDS = 2.0
_WINDOWS = 3
"""Number of windows from a long sound of the lasting classes; other classes give only the beginning."""
_LASTING = frozenset({"engine", "fire", "water", "weather", "bird", "beast"})
# The first rule that matches a file's name decides; None drops the sound. Sounds that are ambiguous, spoken, or
# synthetic by nature (magic) are dropped.
_RULES: tuple[tuple[str, str | None], ...] = (
    (
        r"music|theme|song|jingle|soundtrack|intro|speech|voice|\bvoc\b|\btut\b|pcv|taunt|\back\b|select(ed)?$|ready"
        r"|completed|under ?attack|announce|dialog|speak|loading|game ?over|victory|level (up|complete|done)|win$"
        r"|anthem|battle|technology|required|placed|territory|phase|trailer|chainsaw|swordman|antlion",
        None,
    ),
    (
        r"impact|collide|walkie|walker|paper|disembark|pottery|hornet|natural horn|diesel|paint|sudden|contact|crouch"
        r"|deadlock|door bell|goody|switch$|shutter|stick|headbullet|attack init|sight|it burns|dogmatix|rocking|color",
        None,
    ),
    (r"foot ?step|\bsteps?\b|\bwstep|\bwalk|\bfs\b|steps(stone|snow|leather|metal|grass)", "footstep"),
    (r"reload|no ?ammo|out of ammo|(gun|rifle|pistol|weapon|grenade|rocket).*(load|switch|pick|bounce|jam)", None),
    (r"power ?up|entry|warning|powder|magic|spell|teleport|\bheal|health|warp|portal", None),
    (r"laser|plasma|phaser|blaster\b", "laser"),
    (r"explo|\bboom$|\bblast$|kaboom|detonat|expl$", "explosion"),
    (r"bullet.*(reflect|bear|bone|snake|flame)|demon|\bmons\b|sniper ship|shoot$|hit$", None),
    (
        r"gun$|gun (shot|fire|sound)|\bgun|rifle|pistol|\bshots?$|^shot|musket|cannon|sniper|\bm16|\buzi|bullet",
        "gunshot",
    ),
    (r"whoosh|swish|swing|swoosh|\bmiss\b", "whoosh"),
    (r"thunder|lightning|\brain\b|storm|\bwind$|\bwind (loop|amb)|windgust|(arctic|hollow|cave) ?wind", "weather"),
    (r"winds?(howling|outside)", "weather"),
    (
        r"^[ht]o?t? ?water$|splash|\bwater|water$|bubbl|\briver|ocean|swim|\bdrip|waves$|plouf|droplet|waterfall",
        "water",
    ),
    (r"\bflame|\bburn|camp ?fire|torch|fire ?place|bonfire|^(open )?fire( loop)?$|small ?fire|flamer", "fire"),
    (
        r"engine|\bmotor\b|helicopter|truck|\bjet\b|tractor|air ?plane|chopper|tank ?(move|idle|drive)|\bcessna",
        "engine",
    ),
    (r"^car$|car passing|^train$|rail train|motorcycle|vacuum|washing machine|sewing machine|excavator", "engine"),
    (r"drop|\bput\b|inventory", None),
    (r"anvil|clank|clang|\bmetal|\bsword|hammer|clink", "metal"),
    (
        r"\bbirds?|crow\b|\bowl\b|\bduck|chicken|rooster|eagle|\bgull|parrot|raven|ptak|hawk|\bgoose|cuckoo|chirp|lark"
        r"|blackbird|drake$|gander|\bhen$|heron|quetzal|seagull|tucan|turkey|vulture|sparrow|pheasant|quail|stork|pelican"
        r"|flamingo|penguin|crane$|grouse|guinea fowl",
        "bird",
    ),
    (r"\bdie|death|\bdead|\bpain|\bhurt|ouch|scream|ooff|injur|grunt|\bargh|gasp|dying", "cry"),
    (
        r"growl|roar\b|snarl|wolf|\bdog|bark|\bcat$|meow|kitten|\bcows?\b|sheep|horse|\bpig\b|goat|\blion$|\bbear$"
        r"|monkey|elephant|donkey|\bfrogs?\b|\bbull$|tiger|chimp|gorilla|dolphin|whale|sea ?lion|bison|\bram$|camel"
        r"|deer|caribou|\bdoe$|fox$|zebra|ferret|hyena|jaguar|lynx|yak$|moose|calf|foal|otter|raccoon|squirrel",
        "beast",
    ),
    (r"click|\bbutton|\bmenu|beep|\btick|\bselect|switch|toggle|blip|typing", "click"),
    (r"alarm|siren|\balert|\bhorn|klaxon|\bbells?\b|chime|gong", "signal"),
)
# Chosen so that each class has about 60, 15 and 25 % of its sounds in the splits. Packages that may share sounds (those
# of tux, of openarena, of freedroid, of lbreakout and of geki; madbomber and frozen-bubble) have one split.
_VALID = (
    "a7xpg-data bambam brainparty-data crossfire-client cube2-data endless-sky-data epiphany-data etw-data "
    "flare-game gigalomania-data glob2-data heroes-sound-effects lincity-ng-data njam-data scid-data "
    "simutrans-pak64 solarwolf widelands-data wizznic-data"
)
_TEST = (
    "7kaa-data abe-data amphetamine-data ardentryst berusky2-data btanks-data bzflag-data csmash-data "
    "davegnukem-data flobopuyo freedink-data freetennis-common frozen-bubble-data garden-of-coloured-lights-data "
    "jag komi madbomber-data mazeofgalious-data mirrormagic-data monsterz-data netpanzer-data pathological "
    "plee-the-bear-data qabcs-data rrootage-data sdl-ball-data sound-theme-freedesktop starfighter-data "
    "supertux-data trackballs-data trigger-rally-data trophy-data tumiki-fighters-data tworld-data unknown-horizons "
    "wing-data wordwarvi-sound yaru-theme-sound zaz-data"
)
_TRAIN = (
    "alienblaster-data caveexpress-data chromium-bsu-data enigma-data excellent-bifurcation extremetuxracer-data "
    "fillets-ng-data freeciv-data freecol freedroid-data freedroidrpg-data freegish-data gamine-data geki2 geki3 "
    "gnome-audio gunroar-data hedgewars-data krank lbreakout2-data lbreakouthd-data lomiri-sounds lugaru-data "
    "marsshooter-data megaglest-data meritous-data micropolis-data minetest-data minetest-mod-mesecons "
    "neverball-common nexuiz-data noiz2sa-data open-invaders-data openarena-081-misc openarena-081-players "
    "openarena-085-data openarena-088-data openarena-data overgod-data parsec47-data pekka-kana-2-data pinball-data "
    "pingus-data powermanga-data pychess scorched3d-data scratch seahorse-adventures searchandrescue-data "
    "tecnoballz-data torus-trooper-data triplea tuxfootball tuxmath-data tuxpaint-stamps-default tuxtype-data "
    "ufoai-sound ukui-media warmux-data warzone2100-data wesnoth-1.16-data"
)
SPLIT_OF = {
    name: split for split, names in (("train", _TRAIN), ("valid", _VALID), ("test", _TEST)) for name in names.split()
}
"""Split of each package."""
_SPOKEN_FOLDERS = re.compile(
    r"/(music|sequenceaudio|\w*speech|feedback|robotic|coms|teamplay|tutorial|(fe)?male|words)/"
)
_SPOKEN_NAMES = re.compile(r"_desc\b|_desc_|_[a-z]{2}(_[A-Z]{2})?\.\w+$|/sounds/alpha/|/voices/")


def effect_class(words: str) -> str | None:
    """Return the class of a sound by the words of its file's name, or None if it has no clear class."""
    return next((label for rule, label in _RULES if re.search(rule, words)), None)


def is_spoken(sound: Sound) -> bool:
    """Return True for speech or music, recognised by folder or name."""
    return bool(_SPOKEN_FOLDERS.search("/" + sound.name.lower()) or _SPOKEN_NAMES.search(sound.name))


def clips(packages: Packages) -> Iterator[Clip | Skip]:
    """Yield up to ``_CAP`` sounds of each class from each package."""
    for package in SPLIT_OF:
        taken: Counter[str] = Counter()
        for sound in by_hash(sounds(packages, package), "effect", lambda sound: sound.name):
            label = None if is_spoken(sound) else effect_class(sound.words)
            if label is None:
                yield Skip("no clear class")
            elif taken[label] == _CAP:
                yield Skip(f"more than {_CAP} of a class in a package")
            else:
                taken[label] += 1
                yield from _clips(sound, label)


def _clips(sound: Sound, label: str) -> Iterator[Clip | Skip]:
    try:
        wave = trim(sound.load())
    except AudioError as error:
        yield Skip(f"unreadable: {error.reason}")
        return
    parts = list(windows(wave, _SECONDS, _WINDOWS if label in _LASTING else 1))
    for number, part in enumerate(parts):
        yield Clip(
            label,
            group=sound.package,
            key=f"{sound.package}/{sound.path.stem if sound.in_archive else ''}{sound.name}/{number}",
            audio=part,
            sources=(sound.source,),
            is_whole=len(parts) == 1,
            fade_out=True,
            split=SPLIT_OF[sound.package],
        )


TASK = Task(
    name="effect",
    about="what a sound effect is",
    group_is="a game or program; packages that may share sounds have one split",
    packages=tuple(SPLIT_OF),
    clips=clips,
    split=Given(),
    max_seconds=_SECONDS,
    least_clips=45,
    notes="Classes are read from file names by rules; names that say something else, or two things, are dropped. cry "
    "is people and monsters in pain or dying, beast all animals but birds, weather wind, rain and thunder, click "
    "also beeps of menus. Long sounds of lasting classes give up to three windows of two seconds.",
)
