# frozen_string_literal: true

# The page of templates.py by Roda's `chunked` plugin, as its documentation shows it.
#
# Rule: this file only serves what `templates.py` measures.

require "cgi"
require "rack/chunked"
require "roda"

LATE = 0.2 # seconds
NAMES = ["plain", "with <markup>", "with 'quotes'", "of Æthelred"].freeze
Row = Struct.new(:number, :name, :price)
ALL_ROWS = (0...10_000).map { |n| Row.new(n, NAMES[n % 4], format("%.2f", n * 1.01)) }.freeze

LAYOUT = <<~ERB
  <!DOCTYPE html>
  <html lang="en"><head><title><%= h(@title) %></title><link rel="stylesheet" href="/style.css"></head>
  <body><h1><%= h(@title) %></h1>
  <%= yield %>
  </body></html>
ERB
PAGE = <<~ERB
  <table>
  <% @rows.each do |row| %><tr><td><%= h(row.number) %></td><td><%= h(row.name) %></td><td><%= h(row.price) %></td></tr>
  <% end %></table>
ERB

class App < Roda
  plugin :render, layout_opts: { inline: LAYOUT, cache_key: "layout" }
  plugin :chunked

  def h(value)
    CGI.escapeHTML(value.to_s)
  end

  def page(count, late)
    @title = "Prices & names"
    chunked(inline: PAGE, cache_key: "page") do
      sleep LATE if late
      @rows = ALL_ROWS.first(count)
    end
  end

  route do |r|
    r.get("page", Integer) { |count| page(count, false) }
    r.get("late", Integer) { |count| page(count, true) }
    r.get("cpu") { Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID).to_s }
  end
end

use Rack::Chunked # unicorn frames nothing by itself
run App.freeze.app
