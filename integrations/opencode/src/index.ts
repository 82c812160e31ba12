/**
 * The plugin: on every call that goes to a known Clew gateway, OpenCode's own session.
 *
 * It decides nothing itself: `gate` says which origins are gateways, `destination` where a call
 * goes, `identity` what it is called. The default export is the only one, because OpenCode takes
 * each function that a module exports for a plugin.
 */

import type { Plugin, PluginModule } from "@opencode-ai/plugin"
import { destinationOf } from "./destination.js"
import { readGate } from "./gate.js"
import { identityHeaders, isNamedAlready } from "./identity.js"
import { Parents } from "./parents.js"

declare const process: { env: Record<string, string | undefined> }

const server: Plugin = async ({ client, directory }, options) => {
  const gate = readGate(options?.["gateway"], process.env)
  if (gate.size === 0) {
    const message = "no gateway is known, so nothing is sent; set CLEW_GATEWAY or the option gateway"
    await client.app.log({ body: { service: "clew", level: "warn", message } }).catch(() => {})
    return {}
  }
  const parents = new Parents(async (id) => {
    const found = await client.session.get({ path: { id }, query: { directory }, throwOnError: true })
    return found.data.parentID
  })
  return {
    "chat.headers": async (input, output) => {
      const origin = destinationOf(input.provider, input.model, process.env)
      if (origin === undefined || !gate.has(origin)) return
      if (isNamedAlready(input.provider.options?.["headers"], input.model.headers, output.headers)) return
      const parent = await parents.of(input.sessionID)
      const headers = identityHeaders(input.sessionID, parent, input.agent, process.env)
      Object.assign(output.headers, headers)
    },
  }
}

export default { id: "clew", server } satisfies PluginModule
