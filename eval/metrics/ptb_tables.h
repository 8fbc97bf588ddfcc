/* ptb_tables: what the tokenizer knows. Included by ptb.c only.
 *
 * PTB_RULES are the tokens of CoreNLP 3.4.1's PTBTokenizer, written anew from what the tool prints: for the reference's
 * 9,798 captions (golden/metrics/ptb.jsonl), for each character of the BMP in six places, for some 35,000 words as
 * abbreviations, and for random captions. The longest match wins, the earlier rule on a tie; dfa.h explains patterns.
 *
 * A rule says how much of the match is the token (enum Take), what is printed (enum Form, text), and the pattern. Every
 * caption ends in a line end and one more symbol, so that a rule may ask what follows the last token. */
#ifndef QF_PTB_TABLES_H
#define QF_PTB_TABLES_H
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

/* Code points beyond ASCII, by symbol; those not listed are OTHER. As measured: whether "X" vanishes, "abXcd" and
 * "12X34" are one token, "1.X" is a number. */
static const struct PtbRange {
    uint16_t first, last, symbol;
} PTB_RANGES[] = {
    { 0x0080, 0x0080, EURO }, { 0x0085, 0x0085, ELLIPSIS }, { 0x0091, 0x0091, LSINGLE }, { 0x0092, 0x0092, APOS },
    { 0x0093, 0x0093, LDOUBLE }, { 0x0094, 0x0094, RDOUBLE }, { 0x0096, 0x0097, DASH }, { 0x00A0, 0x00A0, NBSP },
    { 0x00A1, 0x00A1, SYMBOL }, { 0x00A2, 0x00A2, CENT }, { 0x00A3, 0x00A3, POUND }, { 0x00A4, 0x00A4, EURO },
    { 0x00A5, 0x00A9, SYMBOL }, { 0x00AA, 0x00AA, LETTER }, { 0x00AB, 0x00AB, LDOUBLE }, { 0x00AC, 0x00AC, SYMBOL },
    { 0x00AD, 0x00AD, SHY }, { 0x00AE, 0x00B4, SYMBOL }, { 0x00B5, 0x00B5, LETTER }, { 0x00B6, 0x00B9, SYMBOL },
    { 0x00BA, 0x00BA, LETTER }, { 0x00BB, 0x00BB, RDOUBLE }, { 0x00BC, 0x00BC, QUARTER }, { 0x00BD, 0x00BD, HALF },
    { 0x00BE, 0x00BE, QUARTERS }, { 0x00BF, 0x00BF, SYMBOL }, { 0x00C0, 0x00D6, LETTER }, { 0x00D7, 0x00D7, SYMBOL },
    { 0x00D8, 0x00F6, LETTER }, { 0x00F7, 0x00F7, SYMBOL }, { 0x00F8, 0x02C1, LETTER }, { 0x02C2, 0x02C5, MARK },
    { 0x02C6, 0x02D1, LETTER }, { 0x02D2, 0x02DF, MARK }, { 0x02E0, 0x02E4, LETTER }, { 0x02E5, 0x02EB, MARK },
    { 0x02EC, 0x02EC, LETTER }, { 0x02ED, 0x02ED, MARK }, { 0x02EE, 0x02EE, LETTER }, { 0x02EF, 0x036F, MARK },
    { 0x0370, 0x0374, LETTER }, { 0x0375, 0x0375, MARK }, { 0x0376, 0x0377, LETTER }, { 0x0378, 0x0379, MARK },
    { 0x037A, 0x037D, LETTER }, { 0x037E, 0x037E, SYMBOL }, { 0x0384, 0x0385, MARK }, { 0x0386, 0x0386, LETTER },
    { 0x0387, 0x0387, SYMBOL }, { 0x0388, 0x038A, LETTER }, { 0x038C, 0x038C, LETTER }, { 0x038E, 0x03A1, LETTER },
    { 0x03A3, 0x03F5, LETTER }, { 0x03F6, 0x03F6, MARK }, { 0x03F7, 0x0481, LETTER }, { 0x0483, 0x0487, MARK },
    { 0x048A, 0x0527, LETTER }, { 0x0531, 0x0556, LETTER }, { 0x0559, 0x0559, LETTER }, { 0x055A, 0x055F, MARK },
    { 0x0561, 0x0587, LETTER }, { 0x0589, 0x0589, SYMBOL }, { 0x058A, 0x058A, HYPHEN }, { 0x0591, 0x05BD, MARK },
    { 0x05BE, 0x05BE, SYMBOL }, { 0x05BF, 0x05BF, MARK }, { 0x05C0, 0x05C0, SYMBOL }, { 0x05C1, 0x05C2, MARK },
    { 0x05C3, 0x05C3, SYMBOL }, { 0x05C4, 0x05C5, MARK }, { 0x05C6, 0x05C6, SYMBOL }, { 0x05C7, 0x05C7, MARK },
    { 0x05D0, 0x05EA, LETTER }, { 0x05F0, 0x05F2, LETTER }, { 0x05F3, 0x05F4, SYMBOL }, { 0x0600, 0x0603, SYMBOL },
    { 0x0606, 0x060C, SYMBOL }, { 0x0614, 0x0614, SYMBOL }, { 0x0615, 0x061A, MARK }, { 0x061B, 0x061B, SYMBOL },
    { 0x061E, 0x061F, SYMBOL }, { 0x0620, 0x064A, LETTER }, { 0x064B, 0x065E, MARK }, { 0x0660, 0x0669, DIGIT },
    { 0x066A, 0x066A, SYMBOL }, { 0x066B, 0x066C, DECIMAL }, { 0x066D, 0x066D, SYMBOL }, { 0x066E, 0x066F, LETTER },
    { 0x0670, 0x0670, MARK }, { 0x0671, 0x06D3, LETTER }, { 0x06D4, 0x06D4, SYMBOL }, { 0x06D5, 0x06D5, LETTER },
    { 0x06D6, 0x06E4, MARK }, { 0x06E5, 0x06E6, LETTER }, { 0x06E7, 0x06ED, MARK }, { 0x06EE, 0x06EF, LETTER },
    { 0x06F0, 0x06F9, DIGIT }, { 0x06FA, 0x06FC, LETTER }, { 0x06FD, 0x06FE, MARK }, { 0x06FF, 0x06FF, LETTER },
    { 0x0700, 0x070D, SYMBOL }, { 0x070F, 0x070F, MARK }, { 0x0710, 0x0710, LETTER }, { 0x0711, 0x0711, MARK },
    { 0x0712, 0x072F, LETTER }, { 0x0730, 0x074C, MARK }, { 0x074D, 0x07A5, LETTER }, { 0x07A6, 0x07B0, MARK },
    { 0x07B1, 0x07B1, LETTER }, { 0x07C0, 0x07C9, DIGIT }, { 0x07CA, 0x07EA, LETTER }, { 0x07EB, 0x07F3, MARK },
    { 0x07F4, 0x07F5, LETTER }, { 0x07F6, 0x07F8, SYMBOL }, { 0x07FA, 0x07FA, LETTER }, { 0x0800, 0x0815, LETTER },
    { 0x081A, 0x081A, LETTER }, { 0x0824, 0x0824, LETTER }, { 0x0828, 0x0828, LETTER }, { 0x0840, 0x0858, LETTER },
    { 0x08A0, 0x08A0, LETTER }, { 0x08A2, 0x08AC, LETTER }, { 0x0900, 0x0903, MARK }, { 0x0904, 0x0939, LETTER },
    { 0x093C, 0x093C, MARK }, { 0x093D, 0x093D, LETTER }, { 0x093E, 0x094E, MARK }, { 0x0950, 0x0950, LETTER },
    { 0x0951, 0x0955, MARK }, { 0x0958, 0x0961, LETTER }, { 0x0962, 0x0963, MARK }, { 0x0964, 0x0965, SYMBOL },
    { 0x0966, 0x096F, DIGIT }, { 0x0971, 0x0977, LETTER }, { 0x0979, 0x097F, LETTER }, { 0x0981, 0x0983, MARK },
    { 0x0985, 0x098C, LETTER }, { 0x098F, 0x0990, LETTER }, { 0x0993, 0x09A8, LETTER }, { 0x09AA, 0x09B0, LETTER },
    { 0x09B2, 0x09B2, LETTER }, { 0x09B6, 0x09B9, LETTER }, { 0x09BC, 0x09BC, MARK }, { 0x09BD, 0x09BD, LETTER },
    { 0x09BE, 0x09C4, MARK }, { 0x09C7, 0x09C8, MARK }, { 0x09CB, 0x09CD, MARK }, { 0x09CE, 0x09CE, LETTER },
    { 0x09D7, 0x09D7, MARK }, { 0x09DC, 0x09DD, LETTER }, { 0x09DF, 0x09E1, LETTER }, { 0x09E2, 0x09E3, MARK },
    { 0x09E6, 0x09EF, DIGIT }, { 0x09F0, 0x09F1, LETTER }, { 0x0A01, 0x0A03, MARK }, { 0x0A05, 0x0A0A, LETTER },
    { 0x0A0F, 0x0A10, LETTER }, { 0x0A13, 0x0A28, LETTER }, { 0x0A2A, 0x0A30, LETTER }, { 0x0A32, 0x0A33, LETTER },
    { 0x0A35, 0x0A36, LETTER }, { 0x0A38, 0x0A39, LETTER }, { 0x0A3C, 0x0A3C, MARK }, { 0x0A3E, 0x0A4F, MARK },
    { 0x0A59, 0x0A5C, LETTER }, { 0x0A5E, 0x0A5E, LETTER }, { 0x0A66, 0x0A6F, DIGIT }, { 0x0A72, 0x0A74, LETTER },
    { 0x0A81, 0x0A83, MARK }, { 0x0A85, 0x0A8D, LETTER }, { 0x0A8F, 0x0A91, LETTER }, { 0x0A93, 0x0AA8, LETTER },
    { 0x0AAA, 0x0AB0, LETTER }, { 0x0AB2, 0x0AB3, LETTER }, { 0x0AB5, 0x0AB9, LETTER }, { 0x0ABC, 0x0ABC, MARK },
    { 0x0ABD, 0x0ABD, LETTER }, { 0x0ABE, 0x0ACF, MARK }, { 0x0AD0, 0x0AD0, LETTER }, { 0x0AE0, 0x0AE1, LETTER },
    { 0x0AE6, 0x0AEF, DIGIT }, { 0x0B05, 0x0B0C, LETTER }, { 0x0B0F, 0x0B10, LETTER }, { 0x0B13, 0x0B28, LETTER },
    { 0x0B2A, 0x0B30, LETTER }, { 0x0B32, 0x0B33, LETTER }, { 0x0B35, 0x0B39, LETTER }, { 0x0B3D, 0x0B3D, LETTER },
    { 0x0B5C, 0x0B5D, LETTER }, { 0x0B5F, 0x0B61, LETTER }, { 0x0B66, 0x0B6F, DIGIT }, { 0x0B71, 0x0B71, LETTER },
    { 0x0B82, 0x0B82, MARK }, { 0x0B83, 0x0B83, LETTER }, { 0x0B85, 0x0B8A, LETTER }, { 0x0B8E, 0x0B90, LETTER },
    { 0x0B92, 0x0B95, LETTER }, { 0x0B99, 0x0B9A, LETTER }, { 0x0B9C, 0x0B9C, LETTER }, { 0x0B9E, 0x0B9F, LETTER },
    { 0x0BA3, 0x0BA4, LETTER }, { 0x0BA8, 0x0BAA, LETTER }, { 0x0BAE, 0x0BB9, LETTER }, { 0x0BBE, 0x0BC2, MARK },
    { 0x0BC6, 0x0BC8, MARK }, { 0x0BCA, 0x0BCD, MARK }, { 0x0BD0, 0x0BD0, LETTER }, { 0x0BE6, 0x0BEF, DIGIT },
    { 0x0C01, 0x0C03, MARK }, { 0x0C05, 0x0C0C, LETTER }, { 0x0C0E, 0x0C10, LETTER }, { 0x0C12, 0x0C28, LETTER },
    { 0x0C2A, 0x0C33, LETTER }, { 0x0C35, 0x0C39, LETTER }, { 0x0C3D, 0x0C3D, LETTER }, { 0x0C3E, 0x0C56, MARK },
    { 0x0C58, 0x0C59, LETTER }, { 0x0C60, 0x0C61, LETTER }, { 0x0C66, 0x0C6F, DIGIT }, { 0x0C85, 0x0C8C, LETTER },
    { 0x0C8E, 0x0C90, LETTER }, { 0x0C92, 0x0CA8, LETTER }, { 0x0CAA, 0x0CB3, LETTER }, { 0x0CB5, 0x0CB9, LETTER },
    { 0x0CBD, 0x0CBD, LETTER }, { 0x0CDE, 0x0CDE, LETTER }, { 0x0CE0, 0x0CE1, LETTER }, { 0x0CE6, 0x0CEF, DIGIT },
    { 0x0CF1, 0x0CF2, LETTER }, { 0x0D05, 0x0D0C, LETTER }, { 0x0D0E, 0x0D10, LETTER }, { 0x0D12, 0x0D3A, LETTER },
    { 0x0D3D, 0x0D3D, LETTER }, { 0x0D3E, 0x0D44, MARK }, { 0x0D46, 0x0D48, MARK }, { 0x0D4E, 0x0D4E, LETTER },
    { 0x0D60, 0x0D61, LETTER }, { 0x0D66, 0x0D6F, DIGIT }, { 0x0D7A, 0x0D7F, LETTER }, { 0x0D85, 0x0D96, LETTER },
    { 0x0D9A, 0x0DB1, LETTER }, { 0x0DB3, 0x0DBB, LETTER }, { 0x0DBD, 0x0DBD, LETTER }, { 0x0DC0, 0x0DC6, LETTER },
    { 0x0E01, 0x0E30, LETTER }, { 0x0E31, 0x0E31, MARK }, { 0x0E32, 0x0E33, LETTER }, { 0x0E34, 0x0E3A, MARK },
    { 0x0E3F, 0x0E3F, SYMBOL }, { 0x0E40, 0x0E46, LETTER }, { 0x0E47, 0x0E4E, MARK }, { 0x0E4F, 0x0E4F, SYMBOL },
    { 0x0E50, 0x0E59, DIGIT }, { 0x0E81, 0x0E82, LETTER }, { 0x0E84, 0x0E84, LETTER }, { 0x0E87, 0x0E88, LETTER },
    { 0x0E8A, 0x0E8A, LETTER }, { 0x0E8D, 0x0E8D, LETTER }, { 0x0E94, 0x0E97, LETTER }, { 0x0E99, 0x0E9F, LETTER },
    { 0x0EA1, 0x0EA3, LETTER }, { 0x0EA5, 0x0EA5, LETTER }, { 0x0EA7, 0x0EA7, LETTER }, { 0x0EAA, 0x0EAB, LETTER },
    { 0x0EAD, 0x0EB0, LETTER }, { 0x0EB1, 0x0EB1, MARK }, { 0x0EB2, 0x0EB3, LETTER }, { 0x0EB4, 0x0EBC, MARK },
    { 0x0EBD, 0x0EBD, LETTER }, { 0x0EC0, 0x0EC4, LETTER }, { 0x0EC6, 0x0EC6, LETTER }, { 0x0EC8, 0x0ECD, MARK },
    { 0x0ED0, 0x0ED9, DIGIT }, { 0x0EDC, 0x0EDF, LETTER }, { 0x0F00, 0x0F00, LETTER }, { 0x0F20, 0x0F29, DIGIT },
    { 0x0F40, 0x0F47, LETTER }, { 0x0F49, 0x0F6C, LETTER }, { 0x0F88, 0x0F8C, LETTER }, { 0x1000, 0x102A, LETTER },
    { 0x103F, 0x103F, LETTER }, { 0x1040, 0x1049, DIGIT }, { 0x1050, 0x1055, LETTER }, { 0x105A, 0x105D, LETTER },
    { 0x1061, 0x1061, LETTER }, { 0x1065, 0x1066, LETTER }, { 0x106E, 0x1070, LETTER }, { 0x1075, 0x1081, LETTER },
    { 0x108E, 0x108E, LETTER }, { 0x1090, 0x1099, DIGIT }, { 0x10A0, 0x10C5, LETTER }, { 0x10C7, 0x10C7, LETTER },
    { 0x10CD, 0x10CD, LETTER }, { 0x10D0, 0x10FA, LETTER }, { 0x10FC, 0x1248, LETTER }, { 0x124A, 0x124D, LETTER },
    { 0x1250, 0x1256, LETTER }, { 0x1258, 0x1258, LETTER }, { 0x125A, 0x125D, LETTER }, { 0x1260, 0x1288, LETTER },
    { 0x128A, 0x128D, LETTER }, { 0x1290, 0x12B0, LETTER }, { 0x12B2, 0x12B5, LETTER }, { 0x12B8, 0x12BE, LETTER },
    { 0x12C0, 0x12C0, LETTER }, { 0x12C2, 0x12C5, LETTER }, { 0x12C8, 0x12D6, LETTER }, { 0x12D8, 0x1310, LETTER },
    { 0x1312, 0x1315, LETTER }, { 0x1318, 0x135A, LETTER }, { 0x1380, 0x138F, LETTER }, { 0x13A0, 0x13F4, LETTER },
    { 0x1401, 0x166C, LETTER }, { 0x166F, 0x167F, LETTER }, { 0x1681, 0x169A, LETTER }, { 0x16A0, 0x16EA, LETTER },
    { 0x1700, 0x170C, LETTER }, { 0x170E, 0x1711, LETTER }, { 0x1720, 0x1731, LETTER }, { 0x1740, 0x1751, LETTER },
    { 0x1760, 0x176C, LETTER }, { 0x176E, 0x1770, LETTER }, { 0x1780, 0x17B3, LETTER }, { 0x17D7, 0x17D7, LETTER },
    { 0x17DC, 0x17DC, LETTER }, { 0x17E0, 0x17E9, DIGIT }, { 0x1810, 0x1819, DIGIT }, { 0x1820, 0x1877, LETTER },
    { 0x1880, 0x18A8, LETTER }, { 0x18AA, 0x18AA, LETTER }, { 0x18B0, 0x18F5, LETTER }, { 0x1900, 0x191C, LETTER },
    { 0x1946, 0x194F, DIGIT }, { 0x1950, 0x196D, LETTER }, { 0x1970, 0x1974, LETTER }, { 0x1980, 0x19AB, LETTER },
    { 0x19C1, 0x19C7, LETTER }, { 0x19D0, 0x19D9, DIGIT }, { 0x1A00, 0x1A16, LETTER }, { 0x1A20, 0x1A54, LETTER },
    { 0x1A80, 0x1A89, DIGIT }, { 0x1A90, 0x1A99, DIGIT }, { 0x1AA7, 0x1AA7, LETTER }, { 0x1B05, 0x1B33, LETTER },
    { 0x1B45, 0x1B4B, LETTER }, { 0x1B50, 0x1B59, DIGIT }, { 0x1B83, 0x1BA0, LETTER }, { 0x1BAE, 0x1BAF, LETTER },
    { 0x1BB0, 0x1BB9, DIGIT }, { 0x1BBA, 0x1BE5, LETTER }, { 0x1C00, 0x1C23, LETTER }, { 0x1C40, 0x1C49, DIGIT },
    { 0x1C4D, 0x1C4F, LETTER }, { 0x1C50, 0x1C59, DIGIT }, { 0x1C5A, 0x1C7D, LETTER }, { 0x1CE9, 0x1CEC, LETTER },
    { 0x1CEE, 0x1CF1, LETTER }, { 0x1CF5, 0x1CF6, LETTER }, { 0x1D00, 0x1DBF, LETTER }, { 0x1E00, 0x1F15, LETTER },
    { 0x1F18, 0x1F1D, LETTER }, { 0x1F20, 0x1F45, LETTER }, { 0x1F48, 0x1F4D, LETTER }, { 0x1F50, 0x1F57, LETTER },
    { 0x1F59, 0x1F59, LETTER }, { 0x1F5B, 0x1F5B, LETTER }, { 0x1F5D, 0x1F5D, LETTER }, { 0x1F5F, 0x1F7D, LETTER },
    { 0x1F80, 0x1FB4, LETTER }, { 0x1FB6, 0x1FBC, LETTER }, { 0x1FBD, 0x1FBD, SYMBOL }, { 0x1FBE, 0x1FBE, LETTER },
    { 0x1FC2, 0x1FC4, LETTER }, { 0x1FC6, 0x1FCC, LETTER }, { 0x1FD0, 0x1FD3, LETTER }, { 0x1FD6, 0x1FDB, LETTER },
    { 0x1FE0, 0x1FEC, LETTER }, { 0x1FF2, 0x1FF4, LETTER }, { 0x1FF6, 0x1FFC, LETTER }, { 0x2000, 0x200A, BLANK },
    { 0x2010, 0x2011, HYPHEN }, { 0x2013, 0x2015, DASH }, { 0x2016, 0x2017, SYMBOL }, { 0x2018, 0x2018, LSINGLE },
    { 0x2019, 0x2019, APOS }, { 0x201A, 0x201A, LOW1 }, { 0x201B, 0x201B, LSINGLE }, { 0x201C, 0x201C, LDOUBLE },
    { 0x201D, 0x201D, RDOUBLE }, { 0x201E, 0x201E, LOW2 }, { 0x201F, 0x2023, SYMBOL }, { 0x2026, 0x2026, ELLIPSIS },
    { 0x2030, 0x2038, SYMBOL }, { 0x2039, 0x2039, LSINGLE }, { 0x203A, 0x203A, RSINGLE }, { 0x203B, 0x203B, SYMBOL },
    { 0x203E, 0x2042, SYMBOL }, { 0x2044, 0x2044, SLASH }, { 0x2070, 0x2070, SYMBOL }, { 0x2071, 0x2071, LETTER },
    { 0x2074, 0x207E, SYMBOL }, { 0x207F, 0x207F, LETTER }, { 0x2080, 0x208E, SYMBOL }, { 0x2090, 0x209C, LETTER },
    { 0x20A0, 0x20A0, EURO }, { 0x20A4, 0x20A4, SYMBOL }, { 0x20AC, 0x20AC, EURO }, { 0x2100, 0x2101, SYMBOL },
    { 0x2102, 0x2102, LETTER }, { 0x2103, 0x2106, SYMBOL }, { 0x2107, 0x2107, LETTER }, { 0x2108, 0x2109, SYMBOL },
    { 0x210A, 0x2113, LETTER }, { 0x2114, 0x2114, SYMBOL }, { 0x2115, 0x2115, LETTER }, { 0x2116, 0x2118, SYMBOL },
    { 0x2119, 0x211D, LETTER }, { 0x211E, 0x2123, SYMBOL }, { 0x2124, 0x2124, LETTER }, { 0x2125, 0x2125, SYMBOL },
    { 0x2126, 0x2126, LETTER }, { 0x2127, 0x2127, SYMBOL }, { 0x2128, 0x2128, LETTER }, { 0x2129, 0x2129, SYMBOL },
    { 0x212A, 0x212D, LETTER }, { 0x212E, 0x212E, SYMBOL }, { 0x212F, 0x2139, LETTER }, { 0x213A, 0x213B, SYMBOL },
    { 0x213C, 0x213F, LETTER }, { 0x2140, 0x2144, SYMBOL }, { 0x2145, 0x2149, LETTER }, { 0x214A, 0x214D, SYMBOL },
    { 0x214E, 0x214E, LETTER }, { 0x214F, 0x214F, SYMBOL }, { 0x2153, 0x2153, THIRD }, { 0x2154, 0x2154, THIRDS },
    { 0x2155, 0x215E, SYMBOL }, { 0x2183, 0x2184, LETTER }, { 0x2190, 0x2BFF, SYMBOL }, { 0x2C00, 0x2C2E, LETTER },
    { 0x2C30, 0x2C5E, LETTER }, { 0x2C60, 0x2CE4, LETTER }, { 0x2CEB, 0x2CEE, LETTER }, { 0x2CF2, 0x2CF3, LETTER },
    { 0x2D00, 0x2D25, LETTER }, { 0x2D27, 0x2D27, LETTER }, { 0x2D2D, 0x2D2D, LETTER }, { 0x2D30, 0x2D67, LETTER },
    { 0x2D6F, 0x2D6F, LETTER }, { 0x2D80, 0x2D96, LETTER }, { 0x2DA0, 0x2DA6, LETTER }, { 0x2DA8, 0x2DAE, LETTER },
    { 0x2DB0, 0x2DB6, LETTER }, { 0x2DB8, 0x2DBE, LETTER }, { 0x2DC0, 0x2DC6, LETTER }, { 0x2DC8, 0x2DCE, LETTER },
    { 0x2DD0, 0x2DD6, LETTER }, { 0x2DD8, 0x2DDE, LETTER }, { 0x2E2F, 0x2E2F, LETTER }, { 0x3000, 0x3000, BLANK },
    { 0x3001, 0x3001, COMMA }, { 0x3002, 0x3002, SYMBOL }, { 0x3005, 0x3006, LETTER }, { 0x3012, 0x3012, SYMBOL },
    { 0x3031, 0x3035, LETTER }, { 0x303B, 0x303C, LETTER }, { 0x3041, 0x3096, LETTER }, { 0x309D, 0x309F, LETTER },
    { 0x30A1, 0x30FA, LETTER }, { 0x30FB, 0x30FB, SYMBOL }, { 0x30FC, 0x30FF, LETTER }, { 0x3105, 0x312D, LETTER },
    { 0x3131, 0x318E, LETTER }, { 0x31A0, 0x31BA, LETTER }, { 0x31F0, 0x31FF, LETTER }, { 0x3400, 0x4DB5, LETTER },
    { 0x4E00, 0x9FCC, LETTER }, { 0xA000, 0xA48C, LETTER }, { 0xA4D0, 0xA4FD, LETTER }, { 0xA500, 0xA60C, LETTER },
    { 0xA610, 0xA61F, LETTER }, { 0xA620, 0xA629, DIGIT }, { 0xA62A, 0xA62B, LETTER }, { 0xA640, 0xA66E, LETTER },
    { 0xA67F, 0xA697, LETTER }, { 0xA6A0, 0xA6E5, LETTER }, { 0xA717, 0xA71F, LETTER }, { 0xA722, 0xA788, LETTER },
    { 0xA78B, 0xA78E, LETTER }, { 0xA790, 0xA793, LETTER }, { 0xA7A0, 0xA7AA, LETTER }, { 0xA7F8, 0xA801, LETTER },
    { 0xA803, 0xA805, LETTER }, { 0xA807, 0xA80A, LETTER }, { 0xA80C, 0xA822, LETTER }, { 0xA840, 0xA873, LETTER },
    { 0xA882, 0xA8B3, LETTER }, { 0xA8D0, 0xA8D9, DIGIT }, { 0xA8F2, 0xA8F7, LETTER }, { 0xA8FB, 0xA8FB, LETTER },
    { 0xA900, 0xA909, DIGIT }, { 0xA90A, 0xA925, LETTER }, { 0xA930, 0xA946, LETTER }, { 0xA960, 0xA97C, LETTER },
    { 0xA984, 0xA9B2, LETTER }, { 0xA9CF, 0xA9CF, LETTER }, { 0xA9D0, 0xA9D9, DIGIT }, { 0xAA00, 0xAA28, LETTER },
    { 0xAA40, 0xAA42, LETTER }, { 0xAA44, 0xAA4B, LETTER }, { 0xAA50, 0xAA59, DIGIT }, { 0xAA60, 0xAA76, LETTER },
    { 0xAA7A, 0xAA7A, LETTER }, { 0xAA80, 0xAAAF, LETTER }, { 0xAAB1, 0xAAB1, LETTER }, { 0xAAB5, 0xAAB6, LETTER },
    { 0xAAB9, 0xAABD, LETTER }, { 0xAAC0, 0xAAC0, LETTER }, { 0xAAC2, 0xAAC2, LETTER }, { 0xAADB, 0xAADD, LETTER },
    { 0xAAE0, 0xAAEA, LETTER }, { 0xAAF2, 0xAAF4, LETTER }, { 0xAB01, 0xAB06, LETTER }, { 0xAB09, 0xAB0E, LETTER },
    { 0xAB11, 0xAB16, LETTER }, { 0xAB20, 0xAB26, LETTER }, { 0xAB28, 0xAB2E, LETTER }, { 0xABC0, 0xABE2, LETTER },
    { 0xABF0, 0xABF9, DIGIT }, { 0xAC00, 0xD7A3, LETTER }, { 0xD7B0, 0xD7C6, LETTER }, { 0xD7CB, 0xD7FB, LETTER },
    { 0xF900, 0xFA6D, LETTER }, { 0xFA70, 0xFAD9, LETTER }, { 0xFB00, 0xFB06, LETTER }, { 0xFB13, 0xFB17, LETTER },
    { 0xFB1D, 0xFB1D, LETTER }, { 0xFB1F, 0xFB28, LETTER }, { 0xFB2A, 0xFB36, LETTER }, { 0xFB38, 0xFB3C, LETTER },
    { 0xFB3E, 0xFB3E, LETTER }, { 0xFB40, 0xFB41, LETTER }, { 0xFB43, 0xFB44, LETTER }, { 0xFB46, 0xFBB1, LETTER },
    { 0xFBD3, 0xFD3D, LETTER }, { 0xFD50, 0xFD8F, LETTER }, { 0xFD92, 0xFDC7, LETTER }, { 0xFDF0, 0xFDFB, LETTER },
    { 0xFE70, 0xFE74, LETTER }, { 0xFE76, 0xFEFC, LETTER }, { 0xFF01, 0xFF0F, SYMBOL }, { 0xFF10, 0xFF19, DIGIT },
    { 0xFF1A, 0xFF20, SYMBOL }, { 0xFF21, 0xFF3A, LETTER }, { 0xFF3B, 0xFF40, SYMBOL }, { 0xFF41, 0xFF5A, LETTER },
    { 0xFF5B, 0xFF65, SYMBOL }, { 0xFF66, 0xFFBE, LETTER }, { 0xFFC2, 0xFFC7, LETTER }, { 0xFFCA, 0xFFCF, LETTER },
    { 0xFFD2, 0xFFD7, LETTER }, { 0xFFDA, 0xFFDC, LETTER }, { 0xFFE0, 0xFFE1, SYMBOL }, { 0xFFE5, 0xFFE6, SYMBOL },
};

#endif
