// The address printed at start ends in #TOKEN. A fragment never leaves the browser by itself, so
// this takes it out of the history and posts it; the answer is a cookie that scripts cannot read.
"use strict";
const token = decodeURIComponent(location.hash.slice(1));
async function logIn() {
  history.replaceState(null, "", "/login");
  const body = new URLSearchParams({ token });
  const response = await fetch("/login", { method: "POST", body, credentials: "same-origin" });
  if (response.ok) location.replace("/");
  else document.getElementById("answer").hidden = false;
}
if (token) logIn();
