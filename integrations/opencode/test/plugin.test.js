import assert from "node:assert/strict"
import { test } from "node:test"
import plugin from "../dist/index.js"
import * as exported from "../dist/index.js"

const GATEWAY = "http://127.0.0.1:2539"

function context(sessions = {}) {
  const logged = []
  const client = {
    app: { log: async ({ body }) => void logged.push(body) },
    session: {
      get: async ({ path }) => {
        if (!(path.id in sessions)) throw new Error("no such session")
        return { data: { id: path.id, parentID: sessions[path.id] } }
      },
    },
  }
  return { client, directory: "/project", logged }
}

async function headersOf(hooks, { baseURL = `${GATEWAY}/v1`, sessionID = "ses_1", agent = "build", headers } = {}) {
  const output = { headers: { "x-other": "kept" } }
  const provider = { options: { baseURL, headers } }
  const model = { api: { url: "", npm: "@ai-sdk/openai-compatible" }, headers: {} }
  await hooks["chat.headers"]({ sessionID, agent, provider, model }, output)
  return output.headers
}

test("the module exports one plugin and nothing that could be taken for another", () => {
  assert.deepEqual(Object.keys(exported), ["default"])
  assert.equal(plugin.id, "clew")
})

test("a call to the gateway bears session, parent and kind, beside what was there", async () => {
  const hooks = await plugin.server(context({ ses_2: "ses_1" }), { gateway: GATEWAY })

  assert.deepEqual(await headersOf(hooks, { sessionID: "ses_2", agent: "compaction" }), {
    "x-other": "kept",
    "X-Dynamo-Session-ID": "ses_2",
    "X-Dynamo-Parent-Session-ID": "ses_1",
    "X-Clew-Kind": "compaction",
  })
})

test("a call to any other origin is left as it is", async () => {
  const hooks = await plugin.server(context({ ses_1: undefined }), { gateway: GATEWAY })

  for (const baseURL of ["https://api.openai.com/v1", "http://127.0.0.1:2540/v1", "http://localhost:2539", "nonsense", undefined]) {
    assert.deepEqual(await headersOf(hooks, { baseURL: baseURL ?? "" }), { "x-other": "kept" }, baseURL)
  }
})

test("OpenCode is not asked for sessions whose calls go elsewhere", async () => {
  const { client, ...rest } = context()
  client.session.get = () => assert.fail("asked")
  const hooks = await plugin.server({ client, ...rest }, { gateway: GATEWAY })

  await headersOf(hooks, { baseURL: "https://api.openai.com/v1" })
})

test("an id that the user has configured is kept", async () => {
  const hooks = await plugin.server(context({ ses_1: undefined }), { gateway: GATEWAY })

  assert.deepEqual(await headersOf(hooks, { headers: { "x-dynamo-session-id": "mine" } }), { "x-other": "kept" })
})

test("a session that OpenCode does not know is sent without parent", async () => {
  const hooks = await plugin.server(context(), { gateway: GATEWAY })

  assert.equal((await headersOf(hooks))["X-Dynamo-Session-ID"], "ses_1")
  assert.equal((await headersOf(hooks))["X-Dynamo-Parent-Session-ID"], undefined)
})

test("without a known gateway it hooks into nothing and says so once", async () => {
  const given = context()
  const before = process.env.CLEW_GATEWAY
  delete process.env.CLEW_GATEWAY
  const hooks = await plugin.server(given, undefined)
  if (before !== undefined) process.env.CLEW_GATEWAY = before

  assert.deepEqual(hooks, {})
  assert.equal(given.logged.length, 1)
  assert.match(given.logged[0].message, /CLEW_GATEWAY/)
})
