# SPDX-License-Identifier: MIT
#
# Plots what scripts/demo has measured. Variables: points (the file), output (the picture, SVG), size
# (of the memory file), engine.

set terminal svg size 960,600 font "DejaVu Sans,Liberation Sans,Arial,sans-serif,15" \
	background "#ffffff" linewidth 1.2
set output output

stats points using 1 nooutput name "guests"
stats points using 2 nooutput name "least"
stats points using 4 nooutput name "most"
last = guests_max
# The axes are logarithmic, and reach from one power of four to another.
log4(x) = log(x) / log(4)
low = floor(log4(least_min > 4096 ? least_min : 4096))
high = ceil(log4((most_max > 4096 ? most_max : 4096) * 1.5))

readable(x) = x < 2**20 ? sprintf("%.3g KiB", x / 2.0**10) : \
	x < 2**30 ? sprintf("%.3g MiB", x / 2.0**20) : sprintf("%.3g GiB", x / 2.0**30)

set title sprintf("Table memory of guests that map one file of %s (engine %s)", size, engine) \
	font ",18" offset 0,0.4
set xlabel "guests" offset 0,-0.2
set ylabel "table memory" offset -0.6,0
set logscale x 10
set logscale y 4
set xrange [1:last > 1 ? last : 2]
set yrange [4.0**low:4.0**high * 1.01]
set xtics 10
set for [decade = 0:5] xtics add (sprintf("%d", 2 * 10**decade) 2 * 10**decade, \
	sprintf("%d", 5 * 10**decade) 5 * 10**decade)
lead = last / 10.0**floor(log10(last) + 0.001)
if (lead / (lead >= 5 ? 5 : lead >= 2 ? 2 : 1) > 1.15) set xtics add (sprintf("%d", last) last)
set ytics ()
set for [power = low:high] ytics add (readable(4.0**power) 4.0**power)
set tics nomirror out
set grid xtics ytics linecolor rgb "#e2e2e2" linewidth 0.8 linetype 1
set border 3 linecolor rgb "#606060"
set key top left reverse Left spacing 1.25 samplen 3 opaque box linecolor rgb "#d0d0d0"
set rmargin 13

# Symbols stand where x has a label, and the last value is written beside the line.
is_first_digit(x, digit) = x == digit * 10**floor(log10(x) + 0.001)
at_label(x, y) = x == last || is_first_digit(x, 1) || is_first_digit(x, 2) || is_first_digit(x, 5) \
	? y : NaN
at_end(x, y) = x == last ? y : NaN

# The colours can be told apart by everybody, the symbols without colours. Two of the series may well
# be the same, so one is a broad band behind the other.
set style line 1 linecolor rgb "#0072b2" linewidth 3 pointtype 7 pointsize 0.8
set style line 2 linecolor rgb "#d55e00" linewidth 2 pointtype 5 pointsize 0.7
set style line 3 linecolor rgb "#bdbdbd" linewidth 9

plot points using 1:4 with lines linestyle 3 title "one VM per guest", \
	keyentry with linespoints linestyle 2 title "private tables", \
	keyentry with linespoints linestyle 1 title "shared tables", \
	points using 1:3 with lines linestyle 2 notitle, \
	points using 1:(at_label($1, $3)) with points linestyle 2 notitle, \
	points using 1:2 with lines linestyle 1 notitle, \
	points using 1:(at_label($1, $2)) with points linestyle 1 notitle, \
	points using 1:(at_end($1, $4)):(readable($4)) with labels left offset 0.8,0.45 \
		textcolor rgb "#606060" notitle, \
	points using 1:(at_end($1, $3)):(readable($3)) with labels left offset 0.8,-0.45 \
		textcolor rgb "#d55e00" notitle, \
	points using 1:(at_end($1, $2)):(readable($2)) with labels left offset 0.8,0 \
		textcolor rgb "#0072b2" notitle
