// Light or dark, before anything is painted: the only script that blocks, so that no page flashes in the other one.
// Without a choice the page follows the system; a choice is kept in localStorage, which may be forbidden.
"use strict";

(() => {
  const KEY = "footage-theme";
  const dark = window.matchMedia("(prefers-color-scheme: dark)");

  function kept() {
    try {
      return window.localStorage.getItem(KEY);
    } catch {
      return null;
    }
  }

  function keep(theme) {
    try {
      window.localStorage.setItem(KEY, theme);
    } catch {
      // forbidden: the choice lasts as long as the page
    }
  }

  function show(theme) {
    document.documentElement.dataset.theme = theme;
  }

  show(kept() ?? (dark.matches ? "dark" : "light"));
  dark.addEventListener("change", () => kept() ?? show(dark.matches ? "dark" : "light"));

  document.addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const other = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
      keep(other);
      show(other);
    });
  });
})();
