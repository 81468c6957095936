"""Sentences for synthetic voices: words of five languages in random order, our own texts.

Sense does not matter to lips, variety of sounds does; so most are made of drawn words.
"""

from __future__ import annotations

import numpy as np

WORDS: dict[str, str] = {
    "en": """above maybe papa mother paper purple bubble member people number remember problem
    before humble shampoo campfire lampshade baby bishop famous family coffee velvet voice river
    seven never feather leather father three thirty thunder earth bath breathe shadow ocean fresh
    measure pleasure vision garage church chocolate kitchen picture judge orange village window
    wonder quiet squirrel queen water away yellow you beyond million road ready rabbit carry
    mirror little light yellow lovely hello school sister summer dozen lazy easy night nothing
    mountain candle golden garden kangaroo dog kick quick music house hotel behind apple animal
    black happy father calm heart palm large bought thought walk tall house brown cloud down
    boy noise point oil day great afraid table five time silence right go open home yellow
    potato could good book put moon blue food shoe fruit bird word early nurse cup love money
    enough bed friend many red ship city build busy sea green people believe the a of and is
    was that with from they about would because every other after under over into between
    tomorrow yesterday perhaps indeed please thank welcome goodbye""",
    "de": """Mutter Vater Bruder Apfel Baum Blume Bäume Mücke Brücke über üben für fünf zwölf
    schön böse König möglich Löffel Vogel Wasser weiß wir warum vielleicht Fenster Pferd Pfanne
    Schule Straße spielen stehen ich nicht mich Bücher machen Buch Nacht Zeit zwanzig zusammen
    Haus Maus laufen heute neu Freund Leute Bein mein klein Arbeit abends Morgen immer Himmel
    Lampe Suppe Puppe Garten Wagen rot oben Sonne sehr See Tee Liebe Kind Kinder hundert und der
    die das mit von bei nach ganz genau jetzt Jahr ja gestern Kuchen kommen bekommen Problem""",
    "es": """padre madre hermano pueblo problema palabra bueno hombre siempre tiempo también
    blanco cambio lluvia calle noche leche mucho muchacho jardín gente rojo hoja perro carro
    ventana fuego agua huevo nuevo puerta mesa silla sombra cabeza corazón zapato cielo ciudad
    verdad libro amigo siglo nosotros aquí allí mañana ayer uno dos tres cuatro cinco seis
    siete ocho de la el con para por muy más donde cuando porque""",
    "fr": """père mère frère famille pomme pain bonjour bonsoir beaucoup bleu peur heure fleur
    rue lune plume musique vie fille chambre jambe temps enfant bon maison montagne jeune jour
    rouge chien chat cheval fenêtre voiture avion fromage homme femme demain hier toujours jamais
    peut-être maintenant aujourd'hui un deux trois quatre cinq huit de la le avec pour mais très
    oui non parce que nous vous mouton bouche poupée""",
    "it": """padre madre fratello bambino problema parola buono uomo sempre tempo anche bianco
    campo pioggia strada notte latte molto giardino gente rosso foglia cane gatto finestra fuoco
    acqua uovo nuovo porta tavolo sedia ombra testa cuore scarpa cielo città verità libro amico
    qui mamma papà domani ieri uno due tre quattro cinque sei sette otto di la il con per molto
    dove quando perché bello piccolo giorno mangiare chiamare scegliere""",
}


def sentences(language: str, count: int, rng: np.random.Generator) -> list[str]:
    """Draw sentences of 5 to 12 words, with a comma now and then."""
    words = WORDS[language].split()
    result = []
    for _ in range(count):
        drawn = [str(word) for word in rng.choice(words, rng.integers(5, 13))]
        if len(drawn) > 7 and rng.random() < 0.4:
            drawn[4] += ","
        text = " ".join(drawn)
        result.append(text[0].upper() + text[1:] + ("?" if rng.random() < 0.15 else "."))
    return result
