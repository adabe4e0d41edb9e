#include <math.h>
#include <stdio.h>

int main(void) {
    long sum = 0, number;
    while (scanf("%ld", &number) == 1) sum += number;
    printf("%.0f\n", floor((double)sum));
    return 0;
}
