import assert from "node:assert/strict"
import { test } from "node:test"
import { destinationOf } from "../dist/destination.js"

const GATEWAY = "http://127.0.0.1:2539"
const ANTHROPIC = { api: { url: "", npm: "@ai-sdk/anthropic" } }

test("the provider's base URL comes before the model's own", () => {
  const model = { api: { url: "https://api.example/v1", npm: "@ai-sdk/openai-compatible" } }

  assert.equal(destinationOf({ options: { baseURL: `${GATEWAY}/v1` } }, model, {}), GATEWAY)
  assert.equal(destinationOf({ options: {} }, model, {}), "https://api.example")
  assert.equal(destinationOf({}, model, {}), "https://api.example")
  assert.equal(destinationOf({ options: { baseURL: "" } }, model, {}), "https://api.example")
})

test("variables in a URL are filled in as OpenCode does", () => {
  const model = { api: { url: "https://${HOST_NAME}/v1" } }

  assert.equal(destinationOf({}, model, { HOST_NAME: "a.example" }), "https://a.example")
  assert.notEqual(destinationOf({}, model, {}), "https://a.example")
})

test("without a URL the package's own variable says where a call goes", () => {
  const set = { ANTHROPIC_BASE_URL: ` ${GATEWAY} `, OPENAI_BASE_URL: "https://other.example" }

  assert.equal(destinationOf({}, ANTHROPIC, set), GATEWAY)
  assert.equal(destinationOf({}, ANTHROPIC, {}), undefined)
  assert.equal(destinationOf({}, { api: { npm: "@ai-sdk/mistral" } }, set), undefined)
  assert.equal(destinationOf({}, {}, set), undefined)
})

test("a login that calls elsewhere by a fetch of its own is not known", () => {
  const options = { baseURL: `${GATEWAY}/v1`, fetch: async () => new Response() }

  assert.equal(destinationOf({ options }, ANTHROPIC, {}), undefined)
})
