/**
 * Where OpenCode sends a call, as far as its configuration says.
 *
 * The provider's `baseURL`, else the model's own URL, variables in it filled in, else the variable
 * that the provider's package reads. Where none says it, or a login has put a `fetch` of its own
 * between (a ChatGPT login calls chatgpt.com whatever the base URL is), the answer is undefined: then
 * nobody knows, and nothing may be sent.
 */

import { type Environment, originOf } from "./gate.js"

const BASE_URL_VARIABLES: Readonly<Record<string, string>> = {
  "@ai-sdk/anthropic": "ANTHROPIC_BASE_URL",
  "@ai-sdk/openai": "OPENAI_BASE_URL",
}

export interface ProviderLike {
  readonly options?: Readonly<Record<string, unknown>>
}

export interface ModelLike {
  readonly api?: { readonly url?: string; readonly npm?: string }
}

/** The origin that a call of this provider's model goes to. */
export function destinationOf(
  provider: ProviderLike,
  model: ModelLike,
  environment: Environment,
): string | undefined {
  if (typeof provider.options?.["fetch"] === "function") return undefined
  const configured = provider.options?.["baseURL"]
  const url = typeof configured === "string" && configured !== "" ? configured : model.api?.url
  if (url) return originOf(filled(url, environment))
  const variable = BASE_URL_VARIABLES[model.api?.npm ?? ""]
  return variable === undefined ? undefined : originOf(environment[variable]?.trim() ?? "")
}

function filled(url: string, environment: Environment): string {
  return url.replace(/\$\{([^}]+)\}/g, (whole, name: string) => environment[name] ?? whole)
}
