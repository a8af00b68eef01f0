// The processor regex_param_extractor (contract 3.2, research/halo_v2.md 1.8): fields of a text by patterns, with defaults.

const upper = (text) => text.replace(/[a-z]/g, (letter) => letter.toUpperCase());
const squeezed = (text) => upper(text.replace(/[ \t]/g, ""));

/** The value of an enum that a text means: exact, then without blanks and case, then one of them begins as the other does. */
function canonical(text, known) {
  const wanted = squeezed(text);
  const begins = (one) => squeezed(one).startsWith(wanted) || wanted.startsWith(squeezed(one));
  return known.find((one) => one === text) ?? known.find((one) => squeezed(one) === wanted) ?? known.find((one) => wanted && begins(one)) ?? upper(text);
}

function isoDate(text) {
  const parts = /^(\d{4})[/-](\d{1,2})[/-](\d{1,2})$/.exec(text);
  return parts ? `${parts[1]}-${parts[2].padStart(2, "0")}-${parts[3].padStart(2, "0")}` : text;
}

function normalized(config, field, value) {
  if (typeof value !== "string") return value;
  let text = config.normalize?.strip_quotes ? value.replace(/^[ \t"']+|[ \t"']+$/g, "") : value;
  if (config.uppercase_fields?.includes(field)) text = upper(text);
  if (config.enums?.[field]) text = canonical(text, config.enums[field]);
  if (config.date_fields?.includes(field)) text = isoDate(text);
  return config.numeric_fields?.includes(field) && text !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

/** The fields that `config` finds in `text`, behind its defaults. Of several patterns the first that matches counts, of a match its group. */
export function extractByRegex(config, text) {
  if (config.allow_multi) throw new Error("regex_param_extractor: the peers cannot be asked for allow_multi");
  const fields = { ...config.defaults };
  for (const [field, written] of Object.entries(config.regex)) {
    for (const one of [written].flat()) {
      const groups = new RegExp(one.pattern, `u${one.flags ?? ""}`).exec(text);
      if (!groups) continue;
      if (groups.length > 2) throw new Error(`regex_param_extractor: ${field} has several groups`);
      fields[field] = groups.at(-1);
      break;
    }
  }
  return Object.fromEntries(Object.entries(fields).map(([field, value]) => [field, normalized(config, field, value)]));
}
