#include "base/svg_plot.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace tinyserve {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

size_t count(const std::string& text, const std::string& what) {
  size_t n = 0;
  for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += what.size()) ++n;
  return n;
}

TEST(AxisTicks, AreRound) {
  EXPECT_THAT(axis_ticks(0, 1, 5), ElementsAre(0, 0.2, 0.4, testing::DoubleEq(0.6000000000000001), 0.8, 1));
  EXPECT_THAT(axis_ticks(0, 17, 5), ElementsAre(0, 5, 10, 15, 20));
  EXPECT_THAT(axis_ticks(3, 3, 5), ElementsAre(3));
}

TEST(PlotSvg, HasAxesLinesAndLegend) {
  const std::string svg = plot_svg("Title <&>", "time (s)",
                                   {{.y_label = "one", .lines = {{"a", {{0, 0}, {10, 1}}}, {"b", {{0, 1}, {10, 0}}}}, .y_max = 1},
                                    {.y_label = "two", .lines = {{"a", {{0, 5}, {10, 500}}}}, .log_y = true}});
  EXPECT_TRUE(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
  EXPECT_TRUE(svg.ends_with("</svg>\n"));
  EXPECT_THAT(svg, HasSubstr("Title &lt;&amp;&gt;"));
  EXPECT_EQ(count(svg, "class=\"axis\""), 2u);
  EXPECT_EQ(count(svg, "class=\"line\""), 3u + 2u);  // lines, and one of each label in the legend
  EXPECT_EQ(count(svg, ">a</text>"), 1u);
  EXPECT_EQ(count(svg, "stroke=\"#0072B2\""), 3u);  // "a" has one colour everywhere
  EXPECT_THAT(svg, HasSubstr(">time (s)</text>"));
  // (0, 0) is the lower left corner of the first panel, (10, 1) its upper right.
  EXPECT_THAT(svg, HasSubstr("d=\"M80.0 284.0L940.0 44.0\""));
}

TEST(PlotSvg, LeavesOutWhatCannotBeDrawn) {
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const std::string svg = plot_svg("t", "x", {{.y_label = "y", .lines = {{"a", {{0, nan}, {1, inf}, {nan, 1}}}, {"zero", {{0, 0}, {1, 0}}}}, .log_y = true}});
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
  EXPECT_EQ(count(svg, "class=\"line\""), 2u);  // the legend's
}

TEST(PlotSvg, LogarithmicXWithMarkers) {
  const std::string svg = plot_svg("t", "share", {{.y_label = "y", .lines = {{"a", {{0, 3}, {0.05, 3.5}, {1, 3.4}}}}, .from_data = true}},
                                   {.log_x = true, .markers = true});
  EXPECT_EQ(count(svg, "<circle"), 2u);  // 0 has no place on the axis
  EXPECT_THAT(svg, HasSubstr("d=\"M80.0 44.0L940.0 284.0\""));
  for (const char* tick : {">0.05<", ">0.1<", ">0.2<", ">0.5<", ">1<", ">3.4<", ">3.5<"}) EXPECT_THAT(svg, HasSubstr(tick));
  EXPECT_THAT(svg, Not(HasSubstr(">0.02<")));
  EXPECT_THAT(plot_svg("t", "x", {{.y_label = "y", .from_data = true}}, {.log_x = true}), Not(HasSubstr("nan")));
}

TEST(PlotSvg, NothingToDraw) { EXPECT_THAT(plot_svg("t", "x", {}), HasSubstr("</svg>")); }

}  // namespace
}  // namespace tinyserve
