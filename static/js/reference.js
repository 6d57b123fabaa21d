// Starts the API reference (GET /docs), and mends what Swagger UI's own markup does to keyboards and screen readers.
const wrapped = (tag, attributes) => (Original, { React }) => (props) =>
  React.createElement(tag, attributes, React.createElement(Original, props));

// A select without a name.
const named = (Original, { React }) =>
  class extends Original {
    render() {
      const whole = super.render();
      const name = (part) => (part?.type === "select" ? React.cloneElement(part, { "aria-label": "Example" }) : part);
      return React.cloneElement(whole, {}, ...React.Children.map(whole.props.children, name));
    }
  };

const mends = {
  wrapComponents: {
    InfoContainer: wrapped("section", { "aria-label": "About this API" }),
    AuthorizeBtnContainer: wrapped("section", { "aria-label": "Authorization" }),
    // There is one server, this one.
    ServersContainer: () => () => null,
    // The tags are headings of the third level, below none of the second.
    operations: (Original, { React }) => (props) =>
      React.createElement(
        "div",
        { className: "operations" },
        React.createElement("h2", {}, "Operations"),
        React.createElement(Original, props),
      ),
    // A link inside the button that opens an operation.
    DeepLink: (_, { React }) => ({ text }) => React.createElement("span", {}, text),
    ExamplesSelect: named,
  },
};

SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#reference",
  plugins: [mends],
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  // Its colours are one scheme's only.
  syntaxHighlight: false,
  // No badge from a server that isn't ours.
  validatorUrl: null,
});
