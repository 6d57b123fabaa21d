// Starts the API reference (GET /docs), and mends what Swagger UI's own markup does to keyboards and screen readers.
const wrapped = (tag, attributes) => (Original, { React }) => (props) =>
  React.createElement(tag, attributes, React.createElement(Original, props));

// Gives what has no name one: every element that `selects`, however deep it lies in what a component draws itself.
const named = (selects, name) => (Original, { React }) => {
  const mend = (part) => {
    if (!React.isValidElement(part)) return part;
    const children = React.Children.map(part.props.children, mend);
    return React.cloneElement(part, selects(part) ? { "aria-label": name } : {}, ...(children ?? []));
  };
  return class extends Original {
    render() {
      return mend(super.render());
    }
  };
};

const mends = {
  wrapComponents: {
    InfoContainer: wrapped("section", { "aria-label": "About this API" }),
    // Its dialog is headed on the third level, below none of the second.
    AuthorizeBtnContainer: (Original, { React }) => (props) =>
      React.createElement(
        "section",
        { "aria-labelledby": "authorization" },
        React.createElement("h2", { id: "authorization", className: "sr" }, "Authorization"),
        React.createElement(Original, props),
      ),
    authorizationPopup: named((part) => part.props.className === "close-modal", "Close"),
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
    // Wider than a small screen: who has no mouse scrolls it by keyboard.
    PlainTextViewer: (_, { React }) => ({ className = "", children }) =>
      React.createElement("pre", { className: `microlight ${className}`, tabIndex: 0 }, children),
    ExamplesSelect: named((part) => part.type === "select", "Example"),
    TextArea: (Original, { React }) => (props) =>
      React.createElement(Original, { "aria-label": "Request body", ...props }),
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
