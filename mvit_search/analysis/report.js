// The figures follow the page's light or dark colours; on paper they are light. Titles wrap on narrow screens.
(function () {
  "use strict";
  var light = ["#0072B2", "rgba(0,114,178,0.42)", "#D55E00", "rgba(213,94,0,0.5)"];
  var dark = ["#56B4E9", "rgba(86,180,233,0.6)", "#FF8F45", "rgba(255,143,69,0.65)"];
  var parts = ["line", "marker", "error_x", "error_y", "textfont"];
  var prefersDark = window.matchMedia("(prefers-color-scheme: dark)");

  function recolour(figure, from, to) {
    figure.data.forEach(function (trace, index) {
      var change = {};
      parts.forEach(function (part) {
        var place = trace[part] ? from.indexOf(trace[part].color) : -1;
        if (place >= 0) change[part + ".color"] = to[place];
      });
      Plotly.restyle(figure, change, [index]);
    });
  }

  function paint(isDark) {
    var grid = isDark ? "#333b43" : "#e3e7eb";
    document.querySelectorAll(".js-plotly-plot").forEach(function (figure) {
      recolour(figure, isDark ? light : dark, isDark ? dark : light);
      Plotly.relayout(figure, {
        "font.color": isDark ? "#e4e8ec" : "#20262d",
        "xaxis.gridcolor": grid,
        "yaxis.gridcolor": grid,
      });
    });
  }

  function wrapped(text, letters) {
    var lines = [""];
    text.split(" ").forEach(function (word) {
      var longer = (lines[lines.length - 1] + " " + word).trim();
      if (longer.length > letters && lines[lines.length - 1]) lines.push(word);
      else lines[lines.length - 1] = longer;
    });
    return lines.join("<br>");
  }

  function subtitleOf(title) { return (title.subtitle || {}).text || ""; }

  function fitTitles() {
    document.querySelectorAll(".js-plotly-plot").forEach(function (figure) {
      var title = figure.layout.title;
      if (!title || !title.text) return;
      var given = figure.givenTitle || {
        text: title.text, subtitle: subtitleOf(title), top: (figure.layout.margin || {}).t || 100
      };
      figure.givenTitle = given;
      // Letters of 17 and 13 pixels, by their mean width, beside the margins.
      var room = figure.clientWidth - 94;
      var text = wrapped(given.text, room / 9), subtitle = wrapped(given.subtitle, room / 6.5);
      if (text === title.text && subtitle === subtitleOf(title)) return;
      var breaks = function (lines) { return lines.split("<br>").length - 1; };
      Plotly.relayout(figure, {
        "title.text": text,
        "title.subtitle.text": subtitle,
        "margin.t": given.top + 20 * breaks(text) + 17 * breaks(subtitle),
      });
    });
  }

  fitTitles();
  window.addEventListener("resize", fitTitles);
  if (prefersDark.matches) paint(true);
  prefersDark.addEventListener("change", function () { paint(prefersDark.matches); });
  window.addEventListener("beforeprint", function () { paint(false); });
  window.addEventListener("afterprint", function () { paint(prefersDark.matches); });
})();
