import assert from "node:assert/strict"
import { test } from "node:test"
import { MAX_SESSIONS, Parents } from "../dist/parents.js"

test("a session's parent is asked once, by calls at the same time too", async () => {
  const asked = []
  const parents = new Parents(async (session) => {
    asked.push(session)
    return session === "child" ? "root" : undefined
  })

  assert.deepEqual(await Promise.all(["child", "child", "root"].map((one) => parents.of(one))), [
    "root",
    "root",
    undefined,
  ])
  assert.equal(await parents.of("child"), "root")
  assert.deepEqual(asked, ["child", "root"])
})

test("a question that fails is nobody's answer, and is asked again", async () => {
  let tries = 0
  const parents = new Parents(() => {
    tries += 1
    if (tries === 1) throw new Error("away")
    return tries === 2 ? Promise.reject(new Error("away")) : Promise.resolve("root")
  })

  assert.equal(await parents.of("child"), undefined)
  assert.equal(await parents.of("child"), undefined)
  assert.equal(await parents.of("child"), "root")
})

test("a question without an answer holds up no call", async () => {
  const parents = new Parents(() => new Promise(() => {}), 5)

  assert.equal(await parents.of("child"), undefined)
})

test("what is remembered is bounded", async () => {
  let tries = 0
  const parents = new Parents(async () => {
    tries += 1
    return undefined
  })
  for (let number = 0; number <= MAX_SESSIONS; number += 1) await parents.of(`s${number}`)
  const before = tries
  await parents.of(`s${MAX_SESSIONS}`)
  assert.equal(tries, before)
  await parents.of("s0")
  assert.equal(tries, before + 1)
})
