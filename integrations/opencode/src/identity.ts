/**
 * What a call is called: the canonical headers, and its kind where OpenCode tells it.
 *
 * An id that the gateway would refuse is left out, and with it everything else: OpenCode's own
 * headers still name the session. A session without parent hangs below the program that started
 * OpenCode, where that said so by `CLEW_PARENT` (`run.environ()` of Clew's SDK).
 */

import type { Environment } from "./gate.js"

export const SESSION_HEADER = "X-Dynamo-Session-ID"
export const PARENT_HEADER = "X-Dynamo-Parent-Session-ID"
export const KIND_HEADER = "X-Clew-Kind"
export const PARENT_VARIABLE = "CLEW_PARENT"

const DECLARED = "canonical:"
const ID = /^[A-Za-z0-9._:/@+=~-]{1,256}$/

/** OpenCode's agents that answer no turn, and the kinds of their calls. */
const KINDS: Readonly<Record<string, string>> = {
  title: "title",
  summary: "summary",
  compaction: "compaction",
}

/** The headers of one call; none where the session's id cannot be sent. */
export function identityHeaders(
  session: string,
  parent: string | undefined,
  agent: unknown,
  environment: Environment,
): Record<string, string> {
  if (!ID.test(session)) return {}
  const headers: Record<string, string> = { [SESSION_HEADER]: session }
  const above = parent ?? declaredParent(environment)
  if (above !== undefined && above !== session && ID.test(above)) headers[PARENT_HEADER] = above
  const name = agentName(agent)
  const kind = Object.hasOwn(KINDS, name) ? KINDS[name] : undefined
  if (kind !== undefined) headers[KIND_HEADER] = kind
  return headers
}

/** Whether a header of the user's, or of another plugin, names the session already. */
export function isNamedAlready(...sources: unknown[]): boolean {
  const wanted = SESSION_HEADER.toLowerCase()
  return sources.some(
    (source) =>
      typeof source === "object" &&
      source !== null &&
      Object.keys(source).some((name) => name.toLowerCase() === wanted),
  )
}

function declaredParent(environment: Environment): string | undefined {
  const value = environment[PARENT_VARIABLE] ?? ""
  return value.startsWith(DECLARED) ? value.slice(DECLARED.length) : undefined
}

/** The agent's name; releases before 1.2 handed over the whole agent. */
function agentName(agent: unknown): string {
  if (typeof agent === "object" && agent !== null && "name" in agent) return String(agent.name)
  return String(agent)
}
