/**
 * Which origins are gateways: those of the option, then those of `CLEW_GATEWAY`; no other.
 *
 * An origin is scheme, host and port (RFC 6454 section 4), compared as such: `localhost` is not
 * `127.0.0.1`. Several are parted by commas or blanks; a path behind the origin does not matter.
 */

export const GATEWAY_VARIABLE = "CLEW_GATEWAY"

export type Environment = Readonly<Record<string, string | undefined>>

/** Throws TypeError for what is neither text nor a list, and for what is no http or https URL. */
export function readGate(option: unknown, environment: Environment): ReadonlySet<string> {
  const named = [...texts(option), environment[GATEWAY_VARIABLE] ?? ""]
  const urls = named.flatMap((text) => text.split(/[\s,]+/)).filter((text) => text !== "")
  return new Set(urls.map(gatewayOrigin))
}

/** Scheme, host and port in one spelling; undefined for what is no http or https URL. */
export function originOf(url: string): string | undefined {
  if (!URL.canParse(url)) return undefined
  const parsed = new URL(url)
  return parsed.protocol === "http:" || parsed.protocol === "https:" ? parsed.origin : undefined
}

function texts(option: unknown): string[] {
  if (option === undefined || option === null) return []
  const list = Array.isArray(option) ? option : [option]
  if (list.every((one) => typeof one === "string")) return list
  throw new TypeError("clew: the option gateway is a URL or a list of URLs")
}

function gatewayOrigin(url: string): string {
  const origin = originOf(url)
  if (origin === undefined) {
    throw new TypeError(`clew: ${url} is no gateway's URL; write it like http://127.0.0.1:2539`)
  }
  return origin
}
