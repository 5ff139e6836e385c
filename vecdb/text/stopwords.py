"""Which words of a language say nothing about a text? Articles, pronouns, prepositions, auxiliaries.

Invariants:
  1. Words are in lower case, as the analyzer folds them; words with an apostrophe keep it.
  2. A change of a list is another analysis: `analysis.VERSION` rises.

Rejected: long lists. Words that may be what somebody looks for ("against", "system", "state") stay.

>>> "the" in words("english"), "computer" in words("english")
(True, False)
"""

from __future__ import annotations

from functools import cache
from typing import Final

__all__ = ["LANGUAGES", "words"]

_LISTS: Final = {
    "english": """
        a about after all also am an and any are aren't as at be because been before being but by
        can can't cannot could couldn't did didn't do does doesn't doing don't for from had hadn't
        has hasn't have haven't having he he'd he'll he's her here hers herself him himself his how
        i i'd i'll i'm i've if in into is isn't it it's its itself just let's me more most mustn't
        my myself no nor not of off on once only or other ought our ours ourselves own same she
        she'd she'll she's should shouldn't so some such than that that's the their theirs them
        themselves then there there's these they they'd they'll they're they've this those to too
        very was wasn't we we'd we'll we're we've were weren't what what's when where which while
        who who's whom whose why will with won't would wouldn't you you'd you'll you're you've your
        yours yourself yourselves
    """,
    "german": """
        aber alle allem allen aller alles als also am an ander andere anderem anderen anderer
        anderes auch auf aus bei beim bin bis bist da damit dann das dass dasselbe dazu daß dein
        deine deinem deinen deiner deines dem den denn der deren des desselben dessen dich die dies
        diese dieselbe dieselben diesem diesen dieser dieses dir doch dort du durch ein eine einem
        einen einer eines einig einige einigem einigen einiger einiges einmal er es etwas euch euer
        eure eurem euren eurer eures für gegen gewesen hab habe haben hat hatte hatten hier hin
        hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer ihres im in indem ins ist ja jede jedem
        jeden jeder jedes jene jenem jenen jener jenes jetzt kann kein keine keinem keinen keiner
        keines können könnte machen man manche manchem manchen mancher manches mein meine meinem
        meinen meiner meines mich mir mit muss musste muß nach nicht nichts noch nun nur ob oder
        ohne sehr sein seine seinem seinen seiner seines selbst sich sie sind so solche solchem
        solchen solcher solches soll sollte sondern sonst um und uns unser unsere unserem unseren
        unserer unseres unter viel vom von vor war waren warst was weg weil weiter welche welchem
        welchen welcher welches wenn wer werde werden wie wieder will wir wird wirst wo wollen
        wollte während würde würden zu zum zur zwar zwischen über
    """,
    "french": """
        ai aie aient ait as au aura aurai auraient aurais aurait auras aurez auriez aurions aurons
        auront aussi autre autres aux avaient avais avait avec avez aviez avions avoir avons ayant
        c'est ce ceci cela celle celles celui ces cet cette ceux chez comme d'un d'une dans de des
        donc dont du elle elles en encore entre es est et eu eue eues eurent eus eut eux furent fus
        fut fûmes fûtes il ils j'ai je l'on la le les leur leurs lors lui là ma mais me mes moi mon
        même mêmes n'a n'est ne ni nos notre nous on ont ou où par parce pas peu plus pour pourquoi
        qu qu'elle qu'il qu'ils qu'on qu'un qu'une quand que quel quelle quelles quels qui quoi
        s'est s'il sa sans se sera serai seraient serais serait seras serez seriez serions serons
        seront ses si soi soient sois soit sommes son sont sous soyez soyons suis sur ta te tes toi
        ton tous tout toute toutes très tu un une vers vos votre vous y à étaient étais était étant
        étiez étions été étée étées étés êtes être
    """,
    "spanish": """
        a al algo algunas alguno algunos ante antes aquel aquella aquellas aquellos aquí así aunque
        cada como con contra cual cuales cuando cuál de del desde donde dos durante e el ella ellas
        ellos en entre era eran eras eres es esa esas ese eso esos esta estaba estaban estado
        estamos estar estas este esto estos estoy está están fue fueron fui ha haber había habían
        hace hacia han has hasta hay haya he la las le les lo los me mi mis mucho muchos muy más mí
        mía mías mío míos nada ni no nos nosotras nosotros nuestra nuestras nuestro nuestros o os
        otra otras otro otros para pero poco por porque pues que quien quienes quién qué se sea sean
        ser será si sido siendo sin sobre sois somos son soy su sus suya suyas suyo suyos sí también
        tan tanto te tenemos tener tengo ti tiene tienen todo todos tu tus tuya tuyas tuyo tuyos tú
        un una unas uno unos vosotras vosotros vuestra vuestras vuestro vuestros y ya yo él
    """,
    "italian": """
        a abbia abbiamo abbiano ad agli ai al alla alle allo altra altre altri altro anche ancora
        avere avete aveva avevano avuto c'è che chi ci coi col come con contro cui da dagli dai dal
        dalla dalle dallo degli dei del dell della delle dello dentro di dopo dove due e ed era
        erano essere fa fino fra fu furono gli ha hai hanno ho i il in io la le lei li lo loro lui
        ma me mi mia mie miei mio molto ne negli nei nel nell nella nelle nello no noi non nostra
        nostre nostri nostro o ogni ora per perché però più poi prima qual quale quali quando quanta
        quante quanti quanto quella quelle quelli quello questa queste questi questo qui sarà se sei
        senza si sia siamo siano siete solo sono sta stata state stati stato su sua sue sugli sui
        sul sulla sulle sullo suo suoi ti tra tu tua tue tuo tuoi tutta tutte tutti tutto un una uno
        vi voi vostra vostre vostri vostro è
    """,
    "portuguese": """
        a ao aos aquela aquelas aquele aqueles aquilo as até com como da das de dela delas dele
        deles depois do dos e ela elas ele eles em entre era eram essa essas esse esses esta estamos
        estas estava estavam este esteja estes esteve estou está estão eu foi fomos for foram fosse
        fui ha haja havia hei há isso isto já lhe lhes mais mas me mesmo meu meus minha minhas muito
        na nas nem no nos nossa nossas nosso nossos num numa não nós o os ou para pela pelas pelo
        pelos per por qual quando que quem se seja sejam sem ser será serão seu seus sido somos sou
        sua suas são só também te tem temos tenha tenho ter teu teus teve tinha tinham tu tua tuas
        têm um uma umas uns você vocês vos à às é éramos
    """,
    "dutch": """
        aan al alles als altijd andere ben bij daar dan dat de der deze die dit doch doen door dus
        een eens en er ge geen geweest haar had heb hebben heeft hem het hier hij hoe hun iemand
        iets ik in is ja je kan kon kunnen maar me meer men met mij mijn moet na naar niet niets nog
        nu of om omdat onder ons ook op over reeds te tegen toch toen tot u uit uw van veel voor
        want waren was wat we wel werd wezen wie wij wil worden wordt zal ze zelf zich zij zijn zo
        zonder zou
    """,
    "russian": """
        а без более больше будет будто бы был была были было быть в вам вас вдруг ведь во вот
        впрочем все всегда всего всех всю вы где да даже два для до другой его ее ей ему если есть
        еще ещё её ж же за зачем здесь и из или им иногда их к как какая какой когда конечно кто
        куда ли лучше между меня мне много может можно мой моя мы на над надо наконец нас не него
        нее ней нельзя нет неё ни нибудь никогда ним них ничего но ну о об один он она они опять от
        перед по под после потом потому почти при про раз разве с сам свою себе себя сейчас со
        совсем так такой там тебя тем теперь то тогда того тоже только том тот три тут ты у уж уже
        хоть чего чем через что чтоб чтобы чуть эти этого этой этом этот эту я
    """,
    "swedish": """
        alla allt att av blev bli blir blivit de dem den denna deras dess dessa det detta dig din
        dina ditt du där då efter ej eller en er era ert ett från för ha hade han hans har henne
        hennes hon honom hur här i icke ingen inom inte jag ju kan kunde man med mellan men mig min
        mina mitt mot mycket ni nu när någon något några och om oss på samma sedan sig sin sina
        sitta själv skulle som så sådan sådana sådant till under upp ut utan vad var vara varför
        varit varje vars vart vem vi vid vilka vilkas vilken vilket vår våra vårt än är åt över
    """,
}

LANGUAGES: Final = tuple(_LISTS)


@cache
def words(language: str) -> frozenset[str]:
    """The words of a language of `LANGUAGES` that say nothing; KeyError for another."""
    return frozenset(_LISTS[language].split())
