// The figures follow the page's light or dark colours; on paper they are light.
(function () {
  "use strict";
  var dark = window.matchMedia("(prefers-color-scheme: dark)");
  function paint(isDark) {
    var ink = isDark ? "#e4e8ec" : "#20262d";
    var grid = isDark ? "#333b43" : "#e3e7eb";
    document.querySelectorAll(".js-plotly-plot").forEach(function (figure) {
      Plotly.relayout(figure, {
        "font.color": ink,
        "xaxis.gridcolor": grid,
        "yaxis.gridcolor": grid,
      });
    });
  }
  if (dark.matches) paint(true);
  dark.addEventListener("change", function () { paint(dark.matches); });
  window.addEventListener("beforeprint", function () { paint(false); });
  window.addEventListener("afterprint", function () { paint(dark.matches); });
})();
