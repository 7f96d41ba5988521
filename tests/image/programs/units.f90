! SPDX-License-Identifier: MIT
! units ROUNDS: formatted, unformatted, direct and stream units that stay open while the program works.
program units
  implicit none
  integer, parameter :: n = 2000
  integer :: rounds, round, i, listing, values, table, stream, got
  character(len=32) :: word
  real(8) :: x(n), y(n), total
  integer(8) :: place

  call get_command_argument(1, word)
  read (word, *) rounds
  open (newunit=listing, file='listing.txt', form='formatted', action='readwrite', status='replace')
  open (newunit=values, file='values.bin', form='unformatted', action='readwrite', status='replace')
  open (newunit=table, file='table.bin', form='unformatted', access='direct', recl=8 * n, status='replace')
  open (newunit=stream, file='stream.bin', form='unformatted', access='stream', status='replace')
  do i = 1, n
    x(i) = dble(mod(i * 7919, 1013))
  end do
  total = 0
  do round = 1, rounds
    do i = 1, n
      x(i) = mod(x(i) * 31 + dble(round + i), 10007d0)
    end do
    call sort(x, y)
    write (listing, '(i8, 3f14.3)') round, sum(x), y(1), y(n)
    write (values) round, x
    write (table, rec=mod(round, 50) + 1) y
    inquire (unit=stream, pos=place)
    write (stream) x(1), place
    if (mod(round, 100) == 0) then
      read (table, rec=mod(round - 30, 50) + 1) y
      total = mod(total + sum(y), 1d9)
      backspace (values)
      read (values) got, y
      if (got /= round .or. any(y /= x)) stop 1
      write (*, '(a, i8, f16.3)') 'round', round, total
      flush (6)
    end if
  end do
  rewind (listing)
  do round = 1, rounds
    read (listing, '(i8, f14.3)') got, y(1)
    if (got /= round) stop 2
    total = mod(total + y(1), 1d9)
  end do
  write (*, '(a, f16.3)') 'total', total
contains
  subroutine sort(from, to)
    real(8), intent(in) :: from(:)
    real(8), intent(out) :: to(:)
    integer :: j, k, gap
    real(8) :: held

    to = from
    gap = size(to) / 2
    do while (gap > 0)
      do j = gap + 1, size(to)
        held = to(j)
        k = j
        do while (k > gap)
          if (to(k - gap) <= held) exit
          to(k) = to(k - gap)
          k = k - gap
        end do
        to(k) = held
      end do
      gap = gap / 2
    end do
  end subroutine
end program
