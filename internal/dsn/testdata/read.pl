# Reads messages, one JSON string a line, with MailTools' header parser and a
# splitter by RFC 2046 5.1.1, and says what it found.
use strict;
use warnings;
use JSON::PP;
use Mail::Header;
use Mail::Internet;
use MIME::QuotedPrint;

sub fields {
    my ($text) = @_;
    my $head = Mail::Header->new([map { "$_\n" } split /\n/, $text], Modify => 0, FoldLength => 0);
    return [map { my $tag = $_; map { my $v = $_; $v =~ s/\n[ \t]/ /g; chomp $v; [$tag, $v] } $head->get($tag) } $head->tags];
}

my $json = JSON::PP->new->utf8->canonical;
while (my $line = <STDIN>) {
    my $raw = $json->allow_nonref->decode($line);
    utf8::encode($raw);
    $raw =~ s/\r\n/\n/g;
    my $m = Mail::Internet->new([map { "$_\n" } split /\n/, $raw, -1], Modify => 0);
    my $type = $m->head->get('Content-Type');
    my $body = join '', @{$m->body};
    my %answer = (to => $m->head->get('To'), subject => $m->head->get('Subject'), auto => $m->head->get('Auto-Submitted'));
    chomp @answer{qw(to subject auto)};
    s/\n[ \t]/ /g, utf8::decode($_) for values %answer;
    my ($boundary) = $type =~ /boundary="?([^";\s]+)/;
    my @parts = defined $boundary ? map { s/\n\z//r } split /^--\Q$boundary\E(?:--)?\n/m, $body : ();
    shift @parts; # the preamble
    my (@kinds, @contents);
    for my $part (@parts) {
        my ($head, $content) = split /\n\n/, "$part\n", 2;
        my ($kind) = $head =~ /^Content-Type:\s*([^;\s]+)/mi;
        last unless $kind;
        push @kinds, $kind;
        $content =~ s/\n\z//;
        push @contents, $head =~ /quoted-printable/ ? decode_qp($content) : $content;
    }
    $answer{parts} = \@kinds;
    if (@contents == 3) {
        $answer{status} = [map { fields($_) } grep { /\S/ } split /\n\n/, $contents[1]];
        utf8::decode($_->[1]) for map { @$_ } @{$answer{status}};
    }
    print $json->encode(\%answer), "\n";
}
