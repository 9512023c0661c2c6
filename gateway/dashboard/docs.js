// Shows the API's own description; the session's cookie lets "Try it out" work.

const answer = await fetch("/v1/openapi.json", { credentials: "same-origin" });
if (answer.ok) {
  window.SwaggerUIBundle({
    spec: await answer.json(),
    dom_id: "#swagger-ui",
    deepLinking: true,
    defaultModelsExpandDepth: 0,
    validatorUrl: null,
  });
} else {
  document.getElementById("docs-note").hidden = false;
}
