/* ptb_tables: what the tokenizer knows. Included by ptb.c only.
 *
 * PTB_RULES are the tokens of CoreNLP 3.4.1's PTBTokenizer, written anew from what the tool prints: for the reference's
 * 9,798 captions (golden/metrics/ptb.jsonl), for each character of the BMP in six places, for some 35,000 words as
 * abbreviations, and for random captions. The longest match wins, the earlier rule on a tie; dfa.h explains patterns.
 *
 * A rule says how much of the match is the token (enum Take), what is printed (enum Form, text), and the pattern. Every
 * caption ends in a line end and one more symbol, so that a rule may ask what follows the last token. */
#pragma once
#include <stdint.h>

#include "eval/metrics/dfa.h"

/* Symbols beyond ASCII: a group of characters each. */
enum PtbSymbol {
    OTHER = 128,   /* separates and vanishes: controls, emoji, private use, what is too new */
    LETTER, MARK, DIGIT, SYMBOL, BLANK,
    NBSP, SHY, HYPHEN, DASH, ELLIPSIS, APOS, LSINGLE, RSINGLE, LDOUBLE, RDOUBLE, LOW1, LOW2,
    HALF, QUARTER, QUARTERS, THIRD, THIRDS, POUND, CENT, EURO, SLASH, DECIMAL, COMMA
};

enum Take {
    ALL, BUT_1, BUT_2, BUT_3,
    FIRST_1, FIRST_2,
    TO_DOT,        /* up to and with the first dot */
    DOT_AGAIN      /* up to the first blank, and the dot before it is read once more */
};

enum Form {
    COPY,          /* lower case; parentheses escaped, blanks as U+00A0, soft hyphens dropped */
    QUOTES,        /* the same, quotes and apostrophes in ASCII */
    HALVES,        /* two tokens, the first of three symbols */
    MARKUP,        /* as COPY, parentheses as they are */
    AMPS,          /* as COPY, &amp; as & */
    TEXT,          /* a fixed text */
    SKIP           /* nothing */
};

static const uint8_t SYMBOLS_L[] = { LETTER }, SYMBOLS_M[] = { MARK, SHY }, SYMBOLS_N[] = { DIGIT },
                     SYMBOLS_S[] = { SYMBOL, LOW1, LOW2, SLASH, COMMA }, SYMBOLS_B[] = { ' ', '\t', BLANK, NBSP };

static const DfaEscape PTB_ESCAPES[] = {
    { 'L', SYMBOLS_L, sizeof SYMBOLS_L }, { 'M', SYMBOLS_M, sizeof SYMBOLS_M }, { 'N', SYMBOLS_N, sizeof SYMBOLS_N },
    { 'S', SYMBOLS_S, sizeof SYMBOLS_S }, { 'B', SYMBOLS_B, sizeof SYMBOLS_B },
};

static const DfaName PTB_NAMES[] = {
    { "apos",     "['’]" },
    { "anyapos",  "['’`‘]" },
    { "hyphen",   "[-‐]" },
    { "any",      "([^]|\n)" },
    { "AL",       "[A-Za-z\\L]" },
    { "ALN",      "[A-Za-z\\L0-9\\N]" },
    { "digit",    "[0-9\\N]" },
    { "letter",   "([A-Za-z\\L\\M]|&[aeiouAEIOU](acute|grave|uml);)" },
    { "alnum",    "({letter}|{digit})" },
    { "word",     "{letter} {alnum}* ([.!?] {letter} {alnum}*)*" },
    { "number",   "({digit}+ | {digit}* ([.:,٫] {digit}+)+)" },
    { "acro",     "[A-Za-z] (\\. [A-Za-z])+" },
    { "under",    "({ALN}|\u00ad)+ (_ {ALN}+)*" },
    { "piece",    "([dDoOlL] {anyapos} {ALN})? {under}" },
    { "joined",   "([A-Za-z0-9] [A-Za-z0-9.,\u00ad]* ({hyphen} ([A-Za-z0-9\u00ad]+ | {acro}\\.))+"
                  "| {piece} ({hyphen} {piece})*)" },
    { "part",     "[A-Za-z0-9]+ ({hyphen} [A-Za-z]+){0,2}" },

    { "urlchar",  "[^\\B\"<>|(){}]" },
    { "urlend",   "[^\\B\"<>|(){}.,!?\\-]" },
    { "path",     "(\\/ [^\\B\"<>|()]+ {urlend})" },
    { "mailchar", "[^\\B\"<>|(){}.]" },
    { "hostchar", "[^\\B\"`'!|(){}$,-_]" },
    { "tag",      "[A-Za-z] [A-Za-z0-9_:.\\-]*" },
    { "value",    "('[^'\n]*' | \"[^\"\n]*\")" },

    { "file",     "(bat|bmp|bz2|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt"
                  "|ps|py|sql|tar|txt|wav|xml|zip|wm[va])" },

    { "opener",   "(A|About|According|Additionally|After|An|As|At|But|Earlier|He|Her|Here|However|If|In|It|Last|Many"
                  "|More|Now|Once|One|Other|Our|She|Since|So|Some|Such|That|The|Their|Then|There|These|They|This|We"
                  "|What|When|While|Yet|You|Mr\\.|Ms\\.)" },
    { "opens",    "[\\B]+ {opener} [\\B\n]" },   /* after an abbreviation: a new sentence */

    { "title",    "(~(adj|adm|adv|alex|assoc|attys?|ave|brig|capt|cf|cie|cmdr|col|comdr|cpl|dept|det|drs?|elec|ens|ft"
                  "|gen|govs?|hon|invt|jos|lieut|lt|maj|messrs|mlle|mme|mr|mrs|ms|msgr|mt|natl|pfc|ph|pres|profs?|pvt"
                  "|reps?|rev|sens?|sfc|sgt|spc|ste?|supts?|vs|wm) | [Mm][ft]g)" },
    { "common",   "(~(ala?|apr|ariz|assn|aug|bancorp|bhd|bldg|blvd|bros|calif|colo|conn|corp|cos?|ct|dak|dec|esq|est"
                  "|etc|ext|feb|fla|fri|ga|inc|ind|intl|jan|jr|jul|jun|kans?|ky|ltd|mar|md|mich|minn|mo|mont?|neb|nev"
                  "|nov|oct|okla|penn|plc|rd|rt|sept?|seq|sq|sr|sys|tel|tenn|thu|thurs|tues?|univ|va|vt|wed|wisc?|wyo)"
                  "| [Pp]p?t[ey]s?)" },
    { "place",    "(Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|ARK|AZ|DEL|ILL|LA|MASS|MISS|ORE|PA|TEX|WASH)" },
    { "abbrev",   "({common} | {place} | ~(ph|ed)\\.[dD]) \\." },
};

static const struct PtbRule {
    int take, form;
    const char *text, *pattern;
} PTB_RULES[] = {
    /* markup, entities, addresses */
    { ALL,       MARKUP, 0,   "< {tag} (\\ + {tag} (\\ * = \\ * {value})?)* \\ * \\/? \\ * > | <\\/ {tag} \\ * >" },
    { ALL,       MARKUP, 0,   "< [!?] [A-Za-z\\-] [^>]* >" },
    { ALL,       TEXT,   "&", "~(&amp;)" },
    { ALL,       TEXT,   "<", "~(&lt;)" },
    { ALL,       TEXT,   ">", "~(&gt;)" },
    { ALL,       TEXT,   "''", "~(&quot;)" },
    { ALL,       TEXT,   "'", "~(&apos;)" },
    { ALL,       SKIP,   0,   "~(&nbsp;)" },
    { ALL,       TEXT,   "--", "~(&[mn]dash;)" },
    { ALL,       COPY,   0,   "&\\#[0-9]+;" },
    { ALL,       COPY,   0,   "~(https?):\\/\\/ {urlchar}+ {urlend}" },
    { ALL,       COPY,   0,   "~(www\\.) ([^\\B\"<>|.!?(){},]+ \\.)+ [A-Za-z]{2,4} {path}?" },
    { ALL,       COPY,   0,   "({hostchar}+ \\.)+ ~(com|net|org|edu) {path}?" },
    { ALL,       COPY,   0,   "<? [A-Za-z0-9] {urlchar}* @ ({mailchar}+ \\.)* {mailchar}+ >?" },
    { ALL,       COPY,   0,   "@ [A-Za-z_] [A-Za-z_0-9]*" },
    { ALL,       COPY,   0,   "\\# {letter}+" },

    /* words, abbreviations */
    { ALL,       HALVES, 0,   "~(cannot|gonna|gotta|lemme|gimme|wanna)" },
    { ALL,       COPY,   0,   "{word}" },
    { ALL,       COPY,   0,   "{under}" },
    { ALL,       COPY,   0,   "[A-Za-z] \\." },
    { FIRST_1,   COPY,   0,   "[A-Za-z] \\. {opens}" },
    { ALL,       COPY,   0,   "{acro} \\." },
    { DOT_AGAIN, COPY,   0,   "{acro} \\. {opens}" },
    { ALL,       COPY,   0,   "{title} \\." },
    { DOT_AGAIN, COPY,   0,   "{abbrev} [\\B]+ [A-Z]" },
    { BUT_2,     COPY,   0,   "{abbrev} {any} {any}" },
    { TO_DOT,    COPY,   0,   "~(art|ca|figs?|nos?|op|pp|prop) \\. [\\B]? {digit}" },
    { ALL,       TEXT,   "...", "\\.{3,5} | (\\. [\\ \u00a0]){2,4} \\. | …" },
    { ALL,       AMPS,   0,   "[A-Z]+ ((\\+|&|~(&amp;)) [A-Z]+)+" },
    { ALL,       COPY,   0,   "[CcFf]\\# | [Cc]\\+\\+ | ~(anti-|pro-)" },
    { BUT_2,     COPY,   0,   "{word} {apos} ~(s|d|m)" },
    { BUT_3,     COPY,   0,   "{word} {apos} ~(re|ve|ll)" },
    { ALL,       COPY,   0,   "{joined}" },
    { BUT_1,     AMPS,   0,   "[A-Z]+ ((\\+|&|~(&amp;)) [A-Z]+)+ \\. [,:;、]" },
    { BUT_1,     COPY,   0,   "({word}|{joined}) \\. [,:;、]" },
    { BUT_1,     COPY,   0,   "{ALN}+ (\\. {ALN}+)* \\. ~({file}) [\\B\n.,!?]" },
    { ALL,       COPY,   0,   "{part} (\\\\? \\/ {part}){1,2}" },

    /* apostrophes */
    { BUT_3,     COPY,   0,   "[A-Za-z]* [A-MO-Za-mo-z] ~n {anyapos} ~t" },
    { ALL,       QUOTES, 0,   "~n {anyapos} ~t" },
    { BUT_1,     QUOTES, 0,   "{apos} ~(s|d|m|re|ve|ll) ([^A-Za-z]|\n)" },
    { FIRST_2,   COPY,   0,   "' ~(tis|twas)" },
    { ALL,       COPY,   0,   "[A-HJ-XZdlno] {anyapos} {AL}{2} {AL}*" },
    { ALL,       COPY,   0,   "~(qu) {anyapos} {AL}{2} {AL}*" },
    { ALL,       COPY,   0,   "{AL}+ [aeiouyAEIOUY] {anyapos} [aeiouA-Z] {AL}*" },
    { ALL,       COPY,   0,   "~(c{apos}mon | e{apos}er | cap{apos}n | o{anyapos}o | s{apos}mores | ev{apos}ry"
                              "| li{apos}l | nat{apos}l | nor{apos}easter | cont{apos}d\\. | ol{apos}"
                              "| dunkin{apos} | somethin{apos})" },
    { ALL,       COPY,   0,   "{apos} ~(em|till?|cause) | {apos} ~n {apos}?" },
    { BUT_2,     TEXT,   "`",  "' [A-Za-z] [^\\B]" },
    { ALL,       QUOTES, 0,   "{apos} ~(s|d|m|re|ve|ll)" },
    { ALL,       COPY,   0,   "{apos} [2-9]0[sS]" },
    { BUT_1,     COPY,   0,   "{apos} [0-9]{2} [\\B\n]" },
    { ALL,       COPY,   0,   "[jJdDlL] {apos}" },
    { BUT_1,     COPY,   0,   "[yY] {apos} {AL}" },

    /* numbers */
    { ALL,       COPY,   0,   "[+\\-]? {number}" },
    { ALL,       COPY,   0,   "({digit}{1,4} [-\\ \u00a0])? {digit}{1,4} [\\/⁄] {digit}{1,4}" },
    { ALL,       COPY,   0,   "(\\([0-9]{2,3}\\) [\\B]? | (\\+\\+?)? ([0-9]{2,4} [-\\B])? [0-9]{2,4} [-\\B])"
                              "[0-9]{3,4} [-\\B]? [0-9]{3,5}" },
    { ALL,       COPY,   0,   "((\\+\\+?)? [0-9]{2,4} \\.)? [0-9]{2,4} \\. [0-9]{3,4} \\. [0-9]{3,5}" },
    { ALL,       COPY,   0,   "{digit}{1,2} [-\\/] {digit}{1,2} [-\\/] {digit}{2,4}" },
    { ALL,       TEXT,   "1/2", "½" },
    { ALL,       TEXT,   "1/4", "¼" },
    { ALL,       TEXT,   "3/4", "¾" },
    { ALL,       TEXT,   "1/3", "⅓" },
    { ALL,       TEXT,   "2/3", "⅔" },
    { ALL,       COPY,   0,   "[A-Z]+\\$" },
    { ALL,       TEXT,   "$", "€" },
    { ALL,       TEXT,   "#", "£" },
    { ALL,       TEXT,   "cents", "¢" },

    /* smileys */
    { BUT_1,     COPY,   0,   "[<>]? [:;=] [-o*']? [()DPdpO\\\\@{|\\[\\]] ([^A-Za-z0-9]|\n)" },
    { ALL,       COPY,   0,   "[-^=~<>'] _ [-^=~<>']" },
    { ALL,       COPY,   0,   "\\( [-^x=~<>'] [_.]? [-^x=~<>'] \\)" },

    /* quotes */
    { BUT_1,     TEXT,   "``", "\" [A-Za-z0-9$]" },
    { ALL,       TEXT,   "''", "\" | ''" },
    { ALL,       TEXT,   "``", "``" },
    { ALL,       QUOTES, 0,   "[`‘’‚“”„›]{1,2}" },

    /* the rest */
    { ALL,       TEXT,   "--", "\\-{2,4} | –" },
    { ALL,       COPY,   0,   "\\-{5} \\-*" },
    { ALL,       COPY,   0,   "[?!]+ | \\*+ | \\\\\\* | \\#+ | _+ | @@+ | << | >>" },
    { ALL,       COPY,   0,   "-[LR][RSC]B-" },
    { ALL,       TEXT,   "-lsb-", "\\[" },
    { ALL,       TEXT,   "-rsb-", "\\]" },
    { ALL,       TEXT,   "-lcb-", "\\{" },
    { ALL,       TEXT,   "-rcb-", "\\}" },
    { ALL,       COPY,   0,   "[!-\\/:-@\\\\^-`|~\\S]" },
};
enum { PTB_NRULES = sizeof PTB_RULES / sizeof *PTB_RULES };

/* Code points beyond ASCII, by symbol, in hexadecimal; those not listed are OTHER. As measured: whether "X" vanishes,
 * "abXcd" and "12X34" are one token, "1.X" is a number. */
static const struct PtbPoints {
    uint8_t symbol;
    const char *points;
} PTB_POINTS[] = {
    { EURO, "80 A4 20A0 20AC" },
    { ELLIPSIS, "85 2026" },
    { LSINGLE, "91 2018 201B 2039" },
    { APOS, "92 2019" },
    { LDOUBLE, "93 AB 201C" },
    { RDOUBLE, "94 BB 201D" },
    { DASH, "96-97 2013-2015" },
    { NBSP, "A0" },
    { CENT, "A2" },
    { POUND, "A3" },
    { SHY, "AD" },
    { QUARTER, "BC" },
    { HALF, "BD" },
    { QUARTERS, "BE" },
    { HYPHEN, "58A 2010-2011" },
    { DECIMAL, "66B-66C" },
    { BLANK, "2000-200A 3000" },
    { LOW1, "201A" },
    { LOW2, "201E" },
    { RSINGLE, "203A" },
    { SLASH, "2044" },
    { THIRD, "2153" },
    { THIRDS, "2154" },
    { COMMA, "3001" },
    { SYMBOL,
      "A1 A5-A9 AC AE-B4 B6-B9 BF D7 F7 37E 387 589 5BE 5C0 5C3 5C6 5F3-5F4 600-603 606-60C 614 61B 61E-61F 66A "
      "66D 6D4 700-70D 7F6-7F8 964-965 E3F E4F 1FBD 2016-2017 201F-2023 2030-2038 203B 203E-2042 2070 2074-207E "
      "2080-208E 20A4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211E-2123 2125 2127 2129 212E 213A-213B "
      "2140-2144 214A-214D 214F 2155-215E 2190-2BFF 3002 3012 30FB FF01-FF0F FF1A-FF20 FF3B-FF40 FF5B-FF65 "
      "FFE0-FFE1 FFE5-FFE6" },
    { LETTER,
      "AA B5 BA C0-D6 D8-F6 F8-2C1 2C6-2D1 2E0-2E4 2EC 2EE 370-374 376-377 37A-37D 386 388-38A 38C 38E-3A1 "
      "3A3-3F5 3F7-481 48A-527 531-556 559 561-587 5D0-5EA 5F0-5F2 620-64A 66E-66F 671-6D3 6D5 6E5-6E6 6EE-6EF "
      "6FA-6FC 6FF 710 712-72F 74D-7A5 7B1 7CA-7EA 7F4-7F5 7FA 800-815 81A 824 828 840-858 8A0 8A2-8AC 904-939 "
      "93D 950 958-961 971-977 979-97F 985-98C 98F-990 993-9A8 9AA-9B0 9B2 9B6-9B9 9BD 9CE 9DC-9DD 9DF-9E1 "
      "9F0-9F1 A05-A0A A0F-A10 A13-A28 A2A-A30 A32-A33 A35-A36 A38-A39 A59-A5C A5E A72-A74 A85-A8D A8F-A91 "
      "A93-AA8 AAA-AB0 AB2-AB3 AB5-AB9 ABD AD0 AE0-AE1 B05-B0C B0F-B10 B13-B28 B2A-B30 B32-B33 B35-B39 B3D "
      "B5C-B5D B5F-B61 B71 B83 B85-B8A B8E-B90 B92-B95 B99-B9A B9C B9E-B9F BA3-BA4 BA8-BAA BAE-BB9 BD0 C05-C0C "
      "C0E-C10 C12-C28 C2A-C33 C35-C39 C3D C58-C59 C60-C61 C85-C8C C8E-C90 C92-CA8 CAA-CB3 CB5-CB9 CBD CDE "
      "CE0-CE1 CF1-CF2 D05-D0C D0E-D10 D12-D3A D3D D4E D60-D61 D7A-D7F D85-D96 D9A-DB1 DB3-DBB DBD DC0-DC6 "
      "E01-E30 E32-E33 E40-E46 E81-E82 E84 E87-E88 E8A E8D E94-E97 E99-E9F EA1-EA3 EA5 EA7 EAA-EAB EAD-EB0 "
      "EB2-EB3 EBD EC0-EC4 EC6 EDC-EDF F00 F40-F47 F49-F6C F88-F8C 1000-102A 103F 1050-1055 105A-105D 1061 "
      "1065-1066 106E-1070 1075-1081 108E 10A0-10C5 10C7 10CD 10D0-10FA 10FC-1248 124A-124D 1250-1256 1258 "
      "125A-125D 1260-1288 128A-128D 1290-12B0 12B2-12B5 12B8-12BE 12C0 12C2-12C5 12C8-12D6 12D8-1310 1312-1315 "
      "1318-135A 1380-138F 13A0-13F4 1401-166C 166F-167F 1681-169A 16A0-16EA 1700-170C 170E-1711 1720-1731 "
      "1740-1751 1760-176C 176E-1770 1780-17B3 17D7 17DC 1820-1877 1880-18A8 18AA 18B0-18F5 1900-191C 1950-196D "
      "1970-1974 1980-19AB 19C1-19C7 1A00-1A16 1A20-1A54 1AA7 1B05-1B33 1B45-1B4B 1B83-1BA0 1BAE-1BAF 1BBA-1BE5 "
      "1C00-1C23 1C4D-1C4F 1C5A-1C7D 1CE9-1CEC 1CEE-1CF1 1CF5-1CF6 1D00-1DBF 1E00-1F15 1F18-1F1D 1F20-1F45 "
      "1F48-1F4D 1F50-1F57 1F59 1F5B 1F5D 1F5F-1F7D 1F80-1FB4 1FB6-1FBC 1FBE 1FC2-1FC4 1FC6-1FCC 1FD0-1FD3 "
      "1FD6-1FDB 1FE0-1FEC 1FF2-1FF4 1FF6-1FFC 2071 207F 2090-209C 2102 2107 210A-2113 2115 2119-211D 2124 2126 "
      "2128 212A-212D 212F-2139 213C-213F 2145-2149 214E 2183-2184 2C00-2C2E 2C30-2C5E 2C60-2CE4 2CEB-2CEE "
      "2CF2-2CF3 2D00-2D25 2D27 2D2D 2D30-2D67 2D6F 2D80-2D96 2DA0-2DA6 2DA8-2DAE 2DB0-2DB6 2DB8-2DBE 2DC0-2DC6 "
      "2DC8-2DCE 2DD0-2DD6 2DD8-2DDE 2E2F 3005-3006 3031-3035 303B-303C 3041-3096 309D-309F 30A1-30FA 30FC-30FF "
      "3105-312D 3131-318E 31A0-31BA 31F0-31FF 3400-4DB5 4E00-9FCC A000-A48C A4D0-A4FD A500-A60C A610-A61F "
      "A62A-A62B A640-A66E A67F-A697 A6A0-A6E5 A717-A71F A722-A788 A78B-A78E A790-A793 A7A0-A7AA A7F8-A801 "
      "A803-A805 A807-A80A A80C-A822 A840-A873 A882-A8B3 A8F2-A8F7 A8FB A90A-A925 A930-A946 A960-A97C A984-A9B2 "
      "A9CF AA00-AA28 AA40-AA42 AA44-AA4B AA60-AA76 AA7A AA80-AAAF AAB1 AAB5-AAB6 AAB9-AABD AAC0 AAC2 AADB-AADD "
      "AAE0-AAEA AAF2-AAF4 AB01-AB06 AB09-AB0E AB11-AB16 AB20-AB26 AB28-AB2E ABC0-ABE2 AC00-D7A3 D7B0-D7C6 "
      "D7CB-D7FB F900-FA6D FA70-FAD9 FB00-FB06 FB13-FB17 FB1D FB1F-FB28 FB2A-FB36 FB38-FB3C FB3E FB40-FB41 "
      "FB43-FB44 FB46-FBB1 FBD3-FD3D FD50-FD8F FD92-FDC7 FDF0-FDFB FE70-FE74 FE76-FEFC FF21-FF3A FF41-FF5A "
      "FF66-FFBE FFC2-FFC7 FFCA-FFCF FFD2-FFD7 FFDA-FFDC" },
    { MARK,
      "2C2-2C5 2D2-2DF 2E5-2EB 2ED 2EF-36F 375 378-379 384-385 3F6 483-487 55A-55F 591-5BD 5BF 5C1-5C2 5C4-5C5 "
      "5C7 615-61A 64B-65E 670 6D6-6E4 6E7-6ED 6FD-6FE 70F 711 730-74C 7A6-7B0 7EB-7F3 900-903 93C 93E-94E "
      "951-955 962-963 981-983 9BC 9BE-9C4 9C7-9C8 9CB-9CD 9D7 9E2-9E3 A01-A03 A3C A3E-A4F A81-A83 ABC ABE-ACF "
      "B82 BBE-BC2 BC6-BC8 BCA-BCD C01-C03 C3E-C56 D3E-D44 D46-D48 E31 E34-E3A E47-E4E EB1 EB4-EBC EC8-ECD" },
    { DIGIT,
      "660-669 6F0-6F9 7C0-7C9 966-96F 9E6-9EF A66-A6F AE6-AEF B66-B6F BE6-BEF C66-C6F CE6-CEF D66-D6F E50-E59 "
      "ED0-ED9 F20-F29 1040-1049 1090-1099 17E0-17E9 1810-1819 1946-194F 19D0-19D9 1A80-1A89 1A90-1A99 "
      "1B50-1B59 1BB0-1BB9 1C40-1C49 1C50-1C59 A620-A629 A8D0-A8D9 A900-A909 A9D0-A9D9 AA50-AA59 ABF0-ABF9 "
      "FF10-FF19" },
};
