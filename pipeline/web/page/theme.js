// Before the first paint: the theme that was chosen last time. And a plain word to those who open
// the file itself, from which a browser loads no modules.

(() => {
  const root = document.documentElement;
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try {
    chosen = localStorage.getItem("theme");
  } catch {
    // storage is switched off: the system's theme will do
  }
  if (chosen) root.style.colorScheme = chosen;

  addEventListener("DOMContentLoaded", () => {
    const button = document.querySelector("#theme");
    const isDark = () => (root.style.colorScheme || (dark.matches ? "dark" : "light")) === "dark";
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.style.colorScheme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem("theme", root.style.colorScheme);
      } catch {
        // as above: it holds until the page is left
      }
      show();
    });
    dark.addEventListener("change", show);
    show();
    if (location.protocol === "file:") {
      document.querySelector("#failure-head").textContent = "This folder wants to be served";
      document.querySelector("#failure-text").textContent =
        "Browsers load no modules from files. Run: python3 -m http.server, here, and open " +
        "http://localhost:8000";
      document.querySelector("#failure").hidden = false;
    }
  });
})();
