#!/usr/bin/perl
# SPDX-License-Identifier: MIT
# words.pl ROUNDS FILE: hashes, sorting, regular expressions, closures, local files, pack.
use strict;
use warnings;

my ($rounds, $path) = @ARGV;
my ($seed, %count, @lines) = (1);
$| = 1;
sub next_number { return $seed = ($seed * 1103515245 + 12345) % 2147483648 }
open(my $file, '+>', $path) or die "$path: $!";
my @rule = map { my $k = $_; sub { $_[0] =~ s/(\d+)$k/$k . reverse $1/er } } 0 .. 9;
for my $round (1 .. $rounds) {
	my @words = map { join '', map { chr(97 + next_number() % 26) } 1 .. 1 + next_number() % 7 } 1 .. 300;
	$count{$_}++ for @words;
	my @sorted = sort { $count{$b} <=> $count{$a} || $a cmp $b } @words;
	my $text = join ' ', map { $rule[ $count{$_} % 10 ]->($count{$_} . $_) } @sorted[ 0 .. 99 ];
	(my $turned = $text) =~ s/\b(\w)(\w*)\b/$2$1/g;
	printf $file "%d %s\n", $round, unpack('%32C*', $turned);
	print "$round $sorted[0] ", scalar(keys %count), "\n" if $round % 200 == 0;
}
seek $file, 0, 0;
my ($sum, $last) = (0, 0);
while (<$file>) {
	/^(\d+) (\d+)$/ && $1 == $last + 1 or die "line $.: $_";
	($sum, $last) = (($sum * 31 + $2) % 1000003, $1);
}
print "$last lines, sum $sum\n";
