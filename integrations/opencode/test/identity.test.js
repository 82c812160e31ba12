import assert from "node:assert/strict"
import { test } from "node:test"
import { identityHeaders, isNamedAlready } from "../dist/identity.js"

test("a root session has its id and nothing else", () => {
  assert.deepEqual(identityHeaders("ses_1", undefined, "build", {}), { "X-Dynamo-Session-ID": "ses_1" })
})

test("a child names its parent", () => {
  assert.deepEqual(identityHeaders("ses_2", "ses_1", "general", {}), {
    "X-Dynamo-Session-ID": "ses_2",
    "X-Dynamo-Parent-Session-ID": "ses_1",
  })
})

test("calls that answer no turn have their kind, others none", () => {
  const kind = (agent) => identityHeaders("ses_1", undefined, agent, {})["X-Clew-Kind"]

  assert.deepEqual(["title", "summary", "compaction"].map(kind), ["title", "summary", "compaction"])
  assert.deepEqual(["build", "constructor", "toString", undefined].map(kind), Array(4).fill(undefined))
  assert.equal(kind({ name: "title" }), "title")
})

test("a root hangs below the program that started it, a child below its parent", () => {
  const environment = { CLEW_PARENT: "canonical:run-42" }

  assert.equal(identityHeaders("ses_1", undefined, "build", environment)["X-Dynamo-Parent-Session-ID"], "run-42")
  assert.equal(identityHeaders("ses_2", "ses_1", "build", environment)["X-Dynamo-Parent-Session-ID"], "ses_1")
  const own = identityHeaders("ses_1", undefined, "build", { CLEW_PARENT: "cs_abc" })
  assert.equal(own["X-Dynamo-Parent-Session-ID"], undefined)
})

test("an id that would be refused is not sent", () => {
  for (const wrong of ["", "a b", "ä", "x".repeat(257), "a\r\nb: c"]) {
    assert.deepEqual(identityHeaders(wrong, "ses_1", "title", {}), {})
    assert.deepEqual(identityHeaders("ses_1", wrong, "build", {}), { "X-Dynamo-Session-ID": "ses_1" })
  }
  assert.deepEqual(identityHeaders("ses_1", "ses_1", "build", {}), { "X-Dynamo-Session-ID": "ses_1" })
})

test("an id that somebody has set is kept, in any spelling", () => {
  assert.equal(isNamedAlready(undefined, {}, { "x-dynamo-session-id": "mine" }), true)
  assert.equal(isNamedAlready({ "X-Dynamo-Session-ID": "mine" }), true)
  assert.equal(isNamedAlready(undefined, null, "text", { "X-Session-Id": "ses_1" }), false)
})
