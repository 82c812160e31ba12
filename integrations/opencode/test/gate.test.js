import assert from "node:assert/strict"
import { test } from "node:test"
import { originOf, readGate } from "../dist/gate.js"

test("gateways are those of the option and of CLEW_GATEWAY, as origins", () => {
  const environment = { CLEW_GATEWAY: "HTTP://Gateway.Example/v1, http://127.0.0.1:2539" }
  const gate = readGate(["https://one.example:443/u/name/v1", "http://[::1]:2539"], environment)

  assert.deepEqual(
    [...gate],
    ["https://one.example", "http://[::1]:2539", "http://gateway.example", "http://127.0.0.1:2539"],
  )
})

test("without either no origin is a gateway", () => {
  assert.equal(readGate(undefined, {}).size, 0)
  assert.equal(readGate("", { CLEW_GATEWAY: "  " }).size, 0)
})

test("what is no gateway's URL is refused with what to write", () => {
  for (const wrong of ["127.0.0.1:2539", "ftp://gateway.example", "file:///etc", "gateway"]) {
    assert.throws(() => readGate(wrong, {}), /write it like http:\/\/127\.0\.0\.1:2539/)
    assert.throws(() => readGate(undefined, { CLEW_GATEWAY: wrong }), TypeError)
  }
  assert.throws(() => readGate({ url: "http://a" }, {}), /a URL or a list of URLs/)
})

test("an origin is scheme, host and port, and nothing that looks like it", () => {
  const gateway = originOf("http://127.0.0.1:2539")
  for (const other of [
    "http://localhost:2539",
    "https://127.0.0.1:2539",
    "http://127.0.0.1:2540",
    "http://127.0.0.1:2539.example.com",
    "http://127.0.0.1:2539@example.com",
    "http://example.com/?http://127.0.0.1:2539",
    "javascript:1",
    "",
  ]) {
    assert.notEqual(originOf(other), gateway, other)
  }
  assert.equal(originOf("http://user:pass@127.0.0.1:2539/v1?x#y"), gateway)
})
