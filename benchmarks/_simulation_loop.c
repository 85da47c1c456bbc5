// The peer in C: steps of single-head attention for many starts, sizes N and D compiled in, W starts
// side by side in the innermost loops. Every token attends to every token; the softmax is shifted
// by its largest logit; nothing is checked.
#include <math.h>
#include <string.h>

void run(REAL *x, long batch, const REAL *logit, const REAL *value, REAL alpha, long steps) {
#pragma omp parallel for schedule(static)
  for (long first = 0; first < batch; first += W) {
    REAL s[N][D][W], k[N][D][W], next[N][D][W];
    int width = batch - first < W ? batch - first : W;
    memset(s, 0, sizeof s);
    for (int b = 0; b < width; b++)
      for (int i = 0; i < N; i++)
        for (int c = 0; c < D; c++) s[i][c][b] = x[((first + b) * N + i) * D + c];
    for (long t = 0; t < steps; t++) {
      for (int j = 0; j < N; j++)
        for (int c = 0; c < D; c++) {
          REAL sum[W] = {0};
          for (int e = 0; e < D; e++)
            for (int b = 0; b < W; b++) sum[b] += logit[c * D + e] * s[j][e][b];
          memcpy(k[j][c], sum, sizeof sum);
        }
      for (int i = 0; i < N; i++) {
        REAL l[N][W], top[W], total[W] = {0}, z[D][W], y[D][W], square[W] = {0};
        for (int b = 0; b < W; b++) top[b] = -1e30;
        for (int j = 0; j < N; j++) {
          REAL sum[W] = {0};
          for (int c = 0; c < D; c++)
            for (int b = 0; b < W; b++) sum[b] += s[i][c][b] * k[j][c][b];
          for (int b = 0; b < W; b++) top[b] = sum[b] > top[b] ? sum[b] : top[b];
          memcpy(l[j], sum, sizeof sum);
        }
        memset(z, 0, sizeof z);
        for (int j = 0; j < N; j++) {
          REAL p[W];
          for (int b = 0; b < W; b++) total[b] += p[b] = EXP(l[j][b] - top[b]);
          for (int c = 0; c < D; c++)
            for (int b = 0; b < W; b++) z[c][b] += p[b] * s[j][c][b];
        }
        for (int c = 0; c < D; c++) {
          REAL sum[W] = {0};
          for (int e = 0; e < D; e++)
            for (int b = 0; b < W; b++) sum[b] += value[c * D + e] * z[e][b];
          for (int b = 0; b < W; b++) {
            y[c][b] = s[i][c][b] + alpha * sum[b] / total[b];
            square[b] += y[c][b] * y[c][b];
          }
        }
        for (int b = 0; b < W; b++) square[b] = 1 / SQRT(square[b]);
        for (int c = 0; c < D; c++)
          for (int b = 0; b < W; b++) next[i][c][b] = y[c][b] * square[b];
      }
      memcpy(s, next, sizeof s);
    }
    for (int b = 0; b < width; b++)
      for (int i = 0; i < N; i++)
        for (int c = 0; c < D; c++) x[((first + b) * N + i) * D + c] = s[i][c][b];
  }
}
