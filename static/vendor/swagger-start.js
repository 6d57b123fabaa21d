// Starts the API reference (GET /docs). Ours; it stands here because inline script is not allowed.
SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  // No badge from a server that isn't ours.
  validatorUrl: null,
});
